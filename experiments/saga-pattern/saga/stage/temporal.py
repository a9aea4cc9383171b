"""What experiments on Temporal are played on, and their plays: deaths, operators, deadlines, a change of the code."""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from saga.engines.temporal.activities import Activities
from saga.engines.temporal.client import Sagas
from saga.engines.temporal.histories import Asked, actions, asked, given_up, refusals
from saga.engines.temporal.messages import USUAL, Limits, Phase, Progress
from saga.engines.temporal.worker import Job, work
from saga.engines.temporal.workflow import OrderSaga
from saga.order import SERVICE, STEPS, UNDO, Action, Order, Request, World
from saga.services.invariant import STATES, Ending, Standing, judge
from saga.services.participant import answer
from saga.services.shop import Shop
from saga.stage.apart import Apart
from saga.stage.engines.temporal import opened
from saga.stage.fates import Fate, Fates, mend, open_shop
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.temporal import Workflows
from saga.stage.killing import RecordedKill, doomed
from saga.windows import EffectWindow, Hook, nowhere
from shared import postgres
from shared.errors import FaultNotFired
from shared.experiment import Run
from shared.faults import Faults
from shared.history import History
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

# Activities that stop in a window until they are let go.


@dataclass(frozen=True)
class Gate:
    """For each of these orders, one action that is held in this window. Files say who stands there, and who may go."""

    folder: Path
    window: str
    holds: dict[str, Action]  # by the order's id
    patience: float = 60.0  # seconds after which whoever is held gives up

    def held(self) -> set[str]:
        """The orders whose action stands at the gate, or has passed it."""
        return {path.name for path in self.folder.glob("*")} & self.holds.keys()

    def open(self) -> None:
        """Let go whoever is held or comes later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "open").touch()

    def hook(self, request: Request) -> Hook:
        return partial(self._hold, request.order.id) if self.holds.get(request.order.id) is request.action else nowhere

    def _hold(self, order: str, window: str) -> None:
        if window == self.window:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / order).touch()
            until(f"the gate of {order}, {window}", (self.folder / "open").exists, self.patience)


class HeldActivities(Activities):
    """Activities with gates in them."""

    def __init__(self, shop: Shop, at: Hook, gates: tuple[Gate, ...]) -> None:
        super().__init__(shop, at)
        self.gates = gates

    def hook(self, request: Request) -> Hook:
        """Through all gates: an order is held by one of them at most."""
        hooks = [gate.hook(request) for gate in self.gates]

        def at(window: str) -> None:
            for hook in (self.at, *hooks):
                hook(window)

        return at


# The stage: a server, a client, shops, and workers that die in a given window.


WORLD = World(customers=100, products=100)
CALM = 5.0  # seconds without a sign of life that are no death yet where tests make a machine stand still for some


def order(name: str, number: int) -> Order:
    """An order of a customer and a product of its own: no two of them wait for each other's locks."""
    return Order(name, WORLD.customer_names()[number], WORLD.product_names()[number], 1, 500)


def slug(text: str) -> str:
    """The text as a part of names."""
    return re.sub(r"\W+", "-", text)


@dataclass(frozen=True)
class Case:
    """One saga on a task queue of its own, whose worker is killed at the nth request that passes the window."""

    order: Order
    window: EffectWindow
    nth: int
    job: Job
    limits: Limits = USUAL

    def kill(self, history: Path) -> RecordedKill:
        return RecordedKill(self.window, nth=self.nth, history=history, process=self.order.id)


class Playground:
    """A Temporal server with what belongs to this run on it."""

    def __init__(self, run: Run, server: Endpoint, name: str) -> None:
        self.run = run
        self.server = server
        self.name = f"{run.name}-{name}"
        self.client = Apart(run.worker, f"{name}-client", partial(Sagas.opened, server.url, self.name))
        run.cleanup(self.client.close)
        self._workers = 0
        self.attempt = USUAL.attempt
        self.heartbeat = run.pick(CALM, USUAL.heartbeat, USUAL.heartbeat)

    def shop(self, name: str, fates: dict[tuple[str, Action], Fate] | None = None) -> Shop:
        """Four services, in which nothing goes wrong but what is listed."""
        return open_shop(self.run, slug(name), Fates(steps={}, undos={}, fixed=fates or {}), WORLD)

    def job(self, shop: Shop, queue: str, **what: Any) -> Job:
        return Job(self.server.url, f"{self.name}-{slug(queue)}", shop, **what)

    def worker(self, job: Job, kill: RecordedKill | None = None) -> Worker:
        """A process that works on the job, and is killed if it is to be."""
        self._workers += 1
        return self.run.worker(f"{job.queue.removeprefix(f'{self.name}-')}-{self._workers}", doomed, kill, work, job)

    def start(self, orders: Iterable[Order], queue: str, limits: Limits = USUAL, timeout: float = 0.0) -> None:
        """Begin them, with the heartbeat of this stage."""
        limits = structs.replace(limits, heartbeat=self.heartbeat)
        for one in orders:
            self.client.call(Sagas.start, one, limits, queue=queue, timeout=timeout)

    def ended(self, orders: Iterable[Order]) -> dict[str, Progress]:
        """Wait until they have ended."""
        return self.client.call(Sagas.all_ended, [one.id for one in orders])

    def state(self, one: Order) -> Progress:
        return self.client.call(Sagas.state, one.id)

    def history(self, one: Order) -> str:
        return self.client.call(Sagas.history, one.id)

    def survive(self, cases: Sequence[Case], history: Path) -> list[float]:
        """Begin the sagas; each one's worker dies in its window, and another takes its place.

        Returns the seconds from each death until the saga has ended. Raises FaultNotFired when a worker lived on.
        """
        victims = [self.worker(case.job, case.kill(history)) for case in cases]
        for case in cases:
            self.start([case.order], case.job.queue, case.limits)
        for worker in victims:
            worker.wait()
        with self.working([case.job for case in cases]):
            ends = self.client.call(moments, [case.order.id for case in cases])
        deaths = {fault.process: fault.at / 1e9 for fault in History.read(history).faults}
        if missing := {case.order.id for case in cases} - deaths.keys():
            raise FaultNotFired(f"the workers of {', '.join(sorted(missing))} were not killed")
        return [ends[case.order.id] - deaths[case.order.id] for case in cases]

    @contextmanager
    def working(self, jobs: Iterable[Job]) -> Iterator[None]:
        """Workers for the time of the block."""
        with killed_in_the_end(self.worker(job) for job in jobs):
            yield


@contextmanager
def killed_in_the_end(workers: Iterable[Worker]) -> Iterator[None]:
    """They are idle by then, and many. Also where the block raises, and where one of them cannot be started."""
    with ExitStack() as things:
        for worker in workers:
            things.callback(worker.kill)
        yield


async def moments(sagas: Sagas, names: list[str]) -> dict[str, float]:
    """The moment at which each of these ends, by the monotonic clock that all processes here share."""

    async def moment(name: str) -> float:
        await sagas.ended(name)
        return time.monotonic()

    return dict(zip(names, await asyncio.gather(*map(moment, names)), strict=True))


async def beaten(sagas: Sagas, saga: str) -> float:
    """Seconds from the start of the attempt that is running to its last heartbeat; 0 while there was none."""
    description = await sagas.handle(saga).describe()
    for running in description.raw_description.pending_activities:
        if running.HasField("last_heartbeat_time"):
            return (running.last_heartbeat_time.ToDatetime() - running.last_started_time.ToDatetime()).total_seconds()
    return 0.0


def visible(shop: Shop, one: Order) -> set[str]:
    """The services in which something of this order is committed, whatever its status."""
    found = set()
    for service, query in STATES.items():
        with postgres.connect(shop.conninfos[service]) as connection:
            if one.id in dict(connection.execute(query).fetchall()):
                found.add(service)
    return found


def answered(shop: Shop, one: Order, action: Action) -> bool:
    """Whether the service has done it, or has refused it."""
    with postgres.connect(shop.conninfos[SERVICE[action]]) as connection:
        return answer(connection, Request(one.id, action, one)) is not None


def repair(shop: Shop, one: Order, action: Action) -> None:
    """What the operator does about a broken step, before anybody is told of it."""
    with postgres.connect(shop.conninfos[SERVICE[action]]) as connection:
        mend(connection, Request(one.id, action, one).id)


# Sagas whose worker is killed in a window, sagas under which the server is, and the popular ways under the same kill.


BACKWARD = tuple(UNDO[step] for step in reversed(STEPS))
# How many requests of its saga have passed a window when it is this one's turn. Where a compensation is to be killed,
# the saga's SHIP is broken: it passes no window, and since nobody knows whether it was done, it is recalled.
TURN = dict(zip(STEPS, range(1, 5), strict=True)) | dict(zip(BACKWARD, range(4, 8), strict=True))
ONE, FEW = Limits(attempts=1), Limits(attempts=3)
AT_ONCE = 8  # processes that die and are followed by others at the same time
RIGHT = "as it is"  # what is said of the saga as saga.engines.temporal has it


@dataclass(frozen=True)
class Deployment:
    """A way to have the saga on Temporal. With one attempt at a step, nobody ever knows what became of it."""

    name: str
    workflow: type = OrderSaga
    activities: type[Activities] = Activities
    limits: Limits = ONE


Chosen = dict[Action, Order]  # a saga for each action in which something is killed
Broken = dict[tuple[str, Action], Fate]


def chosen(name: str, actions: Iterable[Action]) -> Chosen:
    """An order for each of the actions."""
    return {action: order(f"{slug(name)}-{action}", number) for number, action in enumerate(actions)}


def broken(orders: Iterable[Order], action: Action) -> Broken:
    """The fates of orders in which this action never succeeds, until it is repaired."""
    return {(one.id, action): Fate.BROKEN for one in orders}


def compensated(orders: Iterable[Chosen]) -> Broken:
    """What makes those sagas compensate in which a compensation is killed."""
    return broken((one for found in orders for action, one in found.items() if action in BACKWARD), Action.SHIP)


@dataclass(frozen=True)
class Killed:
    """Sagas that have ended, and in each an action that was interrupted by a death."""

    stage: Playground
    shop: Shop
    orders: list[tuple[Action, Order]]
    seconds: dict[str, list[float]]  # by window: until sagas had ended
    # The services in which an order was seen.
    seen: dict[EffectWindow, dict[Action, set[str]]] = field(default_factory=dict)

    def asked(self) -> list[Asked]:
        """The actions that were interrupted, with all their attempts."""
        found = [(action, asked(self.stage.history(one))) for action, one in self.orders]
        return [each for action, history in found for each in history if each.action is action]

    def undone(self) -> list[list[Action]]:
        """All actions of each saga in which a compensation was interrupted."""
        return [actions(self.stage.history(one)) for action, one in self.orders if action in BACKWARD]

    @property
    def standing(self) -> Standing:
        return judge(self.shop)

    @property
    def forward(self) -> int:
        """How many were interrupted in a step."""
        return sum(action in STEPS for action, _ in self.orders)


def before(step: Action, window: EffectWindow) -> set[str]:
    """The services in which an order should be committed in this window of a step."""
    done = window is EffectWindow.AFTER
    return {SERVICE[each] for each in STEPS[: STEPS.index(step) + done]}


def kill_workers(run: Run) -> Killed:
    """For each action and window a saga, whose worker dies there and is followed by another."""
    stage = Playground(run, run.endpoints["temporal"], "workers")
    doomed = run.pick((Action.CHARGE, Action.REFUND), tuple(TURN), tuple(TURN))
    rounds = [(window, number) for window in EffectWindow for number in range(run.pick(1, 1, 2))]
    orders = {turn: chosen(f"worker-{turn[0]}-{turn[1]}", doomed) for turn in rounds}
    shop = stage.shop("worker", compensated(orders.values()))
    cases = [
        Case(one, window, TURN[action], stage.job(shop, one.id), FEW)
        for (window, _), found in orders.items()
        for action, one in found.items()
    ]
    seconds: dict[str, list[float]] = {window: [] for window in EffectWindow}
    for first in range(0, len(cases), AT_ONCE):
        batch = cases[first : first + AT_ONCE]
        for case, measured in zip(batch, stage.survive(batch, run.history_file("worker")), strict=True):
            seconds[case.window].append(measured)
    return Killed(stage, shop, [pair for found in orders.values() for pair in found.items()], seconds)


def kill_server(run: Run) -> Killed:
    """All activities stand in the same window when the server dies, and are done while it is dead."""
    server = run.own("temporal")
    stage = Playground(run, server.endpoint, "own")
    windows = run.pick((EffectWindow.AFTER,), tuple(EffectWindow), tuple(EffectWindow))
    orders = {window: chosen(f"server-{window}", TURN) for window in windows}
    gates = {
        window: Gate(run.folder / "gates" / slug(window), window, {one.id: action for action, one in found.items()})
        for window, found in orders.items()
    }
    shop, faults = stage.shop("server", compensated(orders.values())), Faults(run.recorder("server", "experiment"))
    held = partial(HeldActivities, gates=tuple(gates.values()))
    seen, seconds = dict[EffectWindow, dict[Action, set[str]]](), dict[str, list[float]]()
    with stage.working([job := stage.job(shop, "server", activities=held, threads=len(TURN) + 4)]):
        for window, found in orders.items():
            stage.start(found.values(), job.queue, FEW)
            await_held(gates[window])
            seen[window] = {action: visible(shop, one) for action, one in found.items()}
            with faults.down(server):
                gates[window].open()
                await_answers(shop, found)
            began = time.monotonic()
            stage.ended(found.values())
            seconds[window] = [time.monotonic() - began]
    return Killed(stage, shop, [pair for found in orders.values() for pair in found.items()], seconds, seen)


def await_held(gate: Gate) -> None:
    until(f"{len(gate.holds)} activities to stand {gate.window}", lambda: gate.held() == gate.holds.keys(), 60)


def await_answers(shop: Shop, orders: Chosen) -> None:
    """Their effects are there, and there is no server to be told of it."""
    until("effects without a server", lambda: all(answered(shop, one, action) for action, one in orders.items()))


@dataclass(frozen=True)
class Lost:
    """Sagas whose worker died when the customer was charged and before anybody knew, in one deployment."""

    count: int
    standing: Standing
    ended: dict[str, Progress]

    @property
    def said_undone(self) -> int:
        """How many sagas say that they are compensated."""
        return counted(self.ended, Phase.COMPENSATED)


def lose_outcomes(run: Run, *ways: Deployment) -> list[Lost]:
    """The same kill for each of them."""
    stage, count = Playground(run, run.endpoints["temporal"], "unknown"), run.pick(1, 2, 4)
    shops = [stage.shop(f"unknown {number}") for number in range(len(ways))]
    cases = [
        [charged(stage, shop, way, number) for number in range(count)] for way, shop in zip(ways, shops, strict=True)
    ]
    stage.survive([case for found in cases for case in found], run.history_file("unknown"))
    run.judge("unknown", fault="SIGKILL")
    ended = [stage.ended(case.order for case in found) for found in cases]
    return [Lost(count, judge(shop), ends) for shop, ends in zip(shops, ended, strict=True)]


def charged(stage: Playground, shop: Shop, way: Deployment, number: int) -> Case:
    one = order(f"{slug(way.name)}-{number}", number)
    job = stage.job(shop, one.id, workflow=way.workflow, activities=way.activities)
    return Case(one, EffectWindow.AFTER, TURN[Action.CHARGE], job, way.limits)


# What else sagas go through: operators, deadlines, and a change of their code while they run.


MANY = Limits(attempts=10_000, deadline=600)
SHORT = 6.0  # seconds for a saga that is to run out of time while it ships; the steps before take a fraction of one


def hanging(heartbeat: float) -> Limits:
    """Of a saga in which an attempt hangs. It has beaten: without a heartbeat, it would have been over before."""
    return Limits(deadline=600, attempts=1, attempt=1.25 * heartbeat, heartbeat=heartbeat)


def some(name: str, count: int) -> list[Order]:
    """Orders of that name, numbered."""
    return [order(f"{name}-{number}", number) for number in range(count)]


def doing(stage: Playground, one: Order, action: Action) -> Progress | None:
    """Its state, when it is about this action."""
    state = stage.state(one)
    return state if state.doing is action else None


def counted(ended: dict[str, Progress], status: Phase) -> int:
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
    stage, count = Playground(run, run.endpoints["temporal"], "operator"), run.pick(2, 5, 10)
    aborted, stuck = some("abort", count), some("stuck", count)
    return intervene(stage, stage.shop("operator", needy(aborted, stuck)), aborted, stuck)


def needy(aborted: Sequence[Order], stuck: Sequence[Order]) -> dict[tuple[str, Action], Fate]:
    """The fates of orders that need an operator."""
    refused = {(one.id, Action.SHIP): Fate.REFUSED for one in stuck}
    return broken(aborted, Action.SHIP) | broken(stuck, Action.REFUND) | refused


def intervene(stage: Playground, shop: Shop, aborted: Sequence[Order], stuck: Sequence[Order]) -> Operated:
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
    stage, count = Playground(run, run.endpoints["temporal"], "late"), run.pick(2, 4, 8)
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
    old: list[list[Action]]  # what those did that had begun before
    new: list[list[Action]]
    replayed: dict[str, list[str]]  # by class: where it does not agree with the old histories; empty where it does
    standing: Standing


def change(run: Run, before: type, wrong: type, right: type) -> Changed:
    """The first version begins sagas; then come the change without a patch and, after it, with one, and new sagas."""
    stage, count = Playground(run, run.endpoints["temporal"], "change"), run.pick(2, 5, 10)
    old, new = some("old", count), some("new", count)
    shop = stage.shop("change", broken(old, Action.RESERVE))
    job = stage.job(shop, "change")
    with stage.working([replace(job, workflow=before)]):
        stage.start(old, job.queue, MANY)
        for one in old:
            until(f"{one.id} to stand at its stock", partial(doing, stage, one, Action.RESERVE))
    with stage.working([replace(job, workflow=wrong)]):
        for one in old:
            repair(shop, one, Action.RESERVE)
        refused = [until(f"{one.id} to be refused", partial(refusal, stage, one)) for one in old]
    shipped = sum("shipping" in visible(shop, one) for one in old)
    with stage.working([replace(job, workflow=right)]):
        stage.start(new, job.queue)
        stage.ended([*old, *new])
    histories, after = [*map(stage.history, old)], [*map(stage.history, new)]
    replayed = {
        code.__name__: [stage.client.call(Sagas.replay, history, code) for history in histories]
        for code in (right, wrong)
    }
    did = [*map(actions, histories)], [*map(actions, after)]
    return Changed(count, refused, shipped, *did, replayed, judge(shop))


def refusal(stage: Playground, one: Order) -> str:
    """Why no worker goes on with the saga; empty while none has refused to."""
    return next(iter(refusals(stage.history(one))), "")


def claim_unreadable(run: Run, topics: Sequence[str]) -> None:
    """The claim about workflows that another program began, with orders that nobody can read."""
    claim_foreign(run, "Temporal", opened, Workflows, topics, variant=RIGHT)
