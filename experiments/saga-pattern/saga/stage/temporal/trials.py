"""What else sagas go through in the experiment: operators, deadlines, and a change of their code while they run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from saga.engines.temporal.client import Sagas
from saga.engines.temporal.histories import given_up, refusals
from saga.engines.temporal.messages import Limits, Progress, Status
from saga.engines.temporal.workflow import OrderSaga
from saga.order import Action, Order
from saga.services.invariant import Ending, Standing, judge
from saga.services.shop import Shop
from saga.stage.fates import Fate
from saga.stage.temporal.held import Gate, HeldActivities
from saga.stage.temporal.kills import broken
from saga.stage.temporal.stage import Stage, order, repair, visible
from saga.windows import EffectWindow
from saga.wrong.temporal_versions import Before, Unpatched
from shared.experiment import Run
from shared.wait import until

MANY = Limits(attempts=10_000, deadline=600)
SHORT = 6.0  # seconds for a saga that is to run out of time while it ships; the steps before take a fraction of one


def hanging(heartbeat: float) -> Limits:
    """Of a saga in which an attempt hangs. It has beaten: without a heartbeat, it would have been over before."""
    return Limits(deadline=600, attempts=1, attempt=1.25 * heartbeat, heartbeat=heartbeat)


def some(name: str, count: int) -> list[Order]:
    """Orders of that name, numbered."""
    return [order(f"{name}-{number}", number) for number in range(count)]


def doing(stage: Stage, one: Order, action: Action) -> Progress | None:
    """Its state, when it is about this action."""
    state = stage.state(one)
    return state if state.doing is action else None


def counted(ended: dict[str, Progress], status: Status) -> int:
    """How many have ended so."""
    return sum(progress.status is status for progress in ended.values())


@dataclass(frozen=True)
class Operated:
    """What the operator has seen, and what is left."""

    running: list[Progress]  # of the sagas that were then aborted
    parked: list[Progress]
    ended: dict[str, Progress]
    standing: Standing


def operate(run: Run) -> Operated:
    """Half of the sagas are aborted, half have a refund that does not succeed."""
    stage, count = Stage(run, run.endpoints["temporal"], "operator"), run.pick(2, 5, 10)
    aborted, stuck = some("abort", count), some("stuck", count)
    return intervene(stage, stage.shop("operator", needy(aborted, stuck)), aborted, stuck)


def needy(aborted: Sequence[Order], stuck: Sequence[Order]) -> dict[tuple[str, Action], Fate]:
    """The fates of orders that need an operator."""
    refused = {(one.id, Action.SHIP): Fate.REFUSED for one in stuck}
    return broken(aborted, Action.SHIP) | broken(stuck, Action.REFUND) | refused


def intervene(stage: Stage, shop: Shop, aborted: Sequence[Order], stuck: Sequence[Order]) -> Operated:
    """Abort sagas while they ship; find those whose refund does not succeed, repair it, and tell them."""
    call = stage.client.call
    with stage.working([job := stage.job(shop, "operator")]):
        stage.start(aborted, job.queue, MANY)
        stage.start(stuck, job.queue, Limits(undo_attempts=2))
        running = [until(f"{one.id} to ship", partial(doing, stage, one, Action.SHIP)) for one in aborted]
        for one in aborted:
            call(Sagas.abort, one.id, "the customer has called")
        listed = sorted(one.id for one in stuck)
        until("the operator's list to be complete", lambda: call(Sagas.waiting) == listed)
        parked = [stage.state(one) for one in stuck]
        for one in stuck:
            repair(shop, one, Action.REFUND)
            call(Sagas.mended, one.id)
        ended = stage.ended([*aborted, *stuck])
        until("the operator's list to be empty", lambda: call(Sagas.waiting) == [])
    return Operated(running, parked, ended, judge(shop))


@dataclass(frozen=True)
class Late:
    """Sagas that ran out of time, and others in which an attempt did."""

    count: int  # of each of the three kinds
    right: Standing  # of those with a deadline of their own, and of those in which an attempt hung
    wrong: Standing  # of those with the server's execution timeout
    ended: dict[str, Progress]  # those with a deadline of their own
    hung: dict[str, Progress]
    given_up: list[dict[Action, str]]  # in each of those: by which timeout an activity ended
    closed: list[str]  # Temporal's word for the end of those with an execution timeout
    limits: Limits  # of those in which an attempt hung

    def undone(self, sagas: Iterable[str]) -> int:
        """How many of these, of the first two kinds, are undone in all services."""
        return sum(self.right.endings.get(saga) is Ending.COMPENSATED for saga in sagas)


def run_late(run: Run) -> Late:
    """Shipping takes longer than a saga has time, or than an attempt has.

    The time counts from the start: one saga ahead on each queue shows that its worker is up.
    """
    stage, count = Stage(run, run.endpoints["temporal"], "late"), run.pick(2, 4, 8)
    late, hung, ended = some("late", count), some("hung", count), some("timed-out", count)
    gates = [shipping_gate(run, orders) for orders in ([*late, *hung], ended)]
    shops = stage.shop("late"), stage.shop("timed out")
    jobs = [
        stage.job(shop, f"late {number}", activities=partial(HeldActivities, gates=(gate,)), threads=2 * count + 2)
        for number, (shop, gate) in enumerate(zip(shops, gates, strict=True))
    ]
    stopped, killed = map(stage.worker, jobs)
    ahead, hangs = some("ahead", len(jobs)), hanging(stage.heartbeat)
    for one, job in zip(ahead, jobs, strict=True):
        stage.start([one], job.queue)
    stage.ended(ahead)
    stage.start(late, jobs[0].queue, Limits(deadline=SHORT))
    stage.start(hung, jobs[0].queue, hangs)
    stage.start(ended, jobs[1].queue, MANY, timeout=SHORT)
    right, stood = stage.ended(late), stage.ended(hung)
    closed = [stage.client.call(Sagas.closed, one.id) for one in ended]
    killed.kill()
    # What was still being shipped when its saga was undone goes on now, and is refused by the service.
    gates[0].open()
    stopped.stop()
    timeouts = [given_up(stage.history(one)) for one in hung]
    return Late(count, judge(shops[0]), judge(shops[1]), right, stood, timeouts, closed, hangs)


def shipping_gate(run: Run, orders: Sequence[Order]) -> Gate:
    """It holds these orders before they are shipped."""
    return Gate(run.folder / "gates" / orders[0].id, EffectWindow.BEFORE, {one.id: Action.SHIP for one in orders})


@dataclass(frozen=True)
class Changed:
    """What a change of the workflow's code did to sagas that had begun before it."""

    count: int
    refused: list[str]  # what the worker without a patch says of them, one for each
    shipped: int  # how many of them it moved on
    old: list[str]  # histories of those that had begun before, at their end
    new: list[str]
    replayed: dict[str, list[str]]  # by class: where it does not agree with the old histories; empty where it does
    standing: Standing


def change(run: Run) -> Changed:
    """The first version begins sagas; then come the change without a patch and, after it, with one, and new sagas."""
    stage, count = Stage(run, run.endpoints["temporal"], "change"), run.pick(2, 5, 10)
    old, new = some("old", count), some("new", count)
    shop = stage.shop("change", broken(old, Action.RESERVE))
    job = stage.job(shop, "change")
    with stage.working([replace(job, workflow=Before)]):
        stage.start(old, job.queue, MANY)
        for one in old:
            until(f"{one.id} to stand at its stock", partial(doing, stage, one, Action.RESERVE))
    with stage.working([replace(job, workflow=Unpatched)]):
        for one in old:
            repair(shop, one, Action.RESERVE)
        refused = [until(f"{one.id} to be refused", partial(refusal, stage, one)) for one in old]
    shipped = sum("shipping" in visible(shop, one) for one in old)
    with stage.working([job]):
        stage.start(new, job.queue)
        stage.ended([*old, *new])
    before, after = [*map(stage.history, old)], [*map(stage.history, new)]
    replayed = {
        code.__name__: [stage.client.call(Sagas.replay, history, code) for history in before]
        for code in (OrderSaga, Unpatched)
    }
    return Changed(count, refused, shipped, before, after, replayed, judge(shop))


def refusal(stage: Stage, one: Order) -> str:
    """Why no worker goes on with the saga; empty while none has refused to."""
    return next(iter(refusals(stage.history(one))), "")
