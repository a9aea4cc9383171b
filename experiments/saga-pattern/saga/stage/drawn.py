"""Camunda and Step Functions side by side: orders that are cases, deaths of workers and servers, and what is left."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from saga.engines.camunda.client import Camunda
from saga.engines.camunda.worker import Ask, Policy
from saga.engines.camunda.worker import work as work_for_camunda
from saga.engines.stepfunctions.client import Change, Definition, Executions, definition
from saga.engines.stepfunctions.worker import work as work_on_queues
from saga.order import STEPS, Action, Order, Outcome, Reply, Request, World, orders
from saga.services.invariant import Standing, judge
from saga.services.shop import Services, Shop
from saga.stage.engines import Ended, Engine, Opener, Site, wait
from saga.stage.engines.camunda import CamundaEngine
from saga.stage.engines.camunda import opened as camunda
from saga.stage.engines.stepfunctions import StepFunctions
from saga.stage.engines.stepfunctions import opened as state_machine
from saga.stage.fates import COUNT, Fate, FatedShop, Fates, mend, open_shop
from saga.stage.foreign import Foreign
from saga.stage.foreign.camunda import Instances
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.stepfunctions import Messages
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow, Hook
from shared import postgres
from shared.faults import Faults
from shared.postgres import Connection
from shared.run import Run
from shared.servers.handle import Handle
from shared.wait import until
from shared.worker import Worker

CHARGE = 3  # the step, counted from 1
AT_ONCE = 50  # sagas on each engine
WHOLE_TIME = 8  # seconds that a state machine gives a saga when it gives it any: its three steps take one of them
STEP_TIME = 3  # seconds that it gives an attempt at a step
HASTY, PATIENT, ONCE = Policy(lock=2.0), Policy(attempts=1_000, longest=0.3), Policy(attempts=1)
PATIENT_LOCK = Policy(threads=1, batch=1, lock=60.0)  # nobody takes over its tasks while the experiment lasts
LOCK = 0.3  # seconds: shorter than the work, which is not over before it is asked for again
ASKED = "select number from attempts where request_id = %s and number > 1"
UNDONE = Action.RELEASE, Action.CANCEL  # by the engine, when the payment fails
LOST = "drawn", "mended", "caught", "mended-catch"  # cases whose payment is made, and its first answer lost

CAMUNDA, STATES = "Camunda", "Step Functions"
OPENERS: dict[str, Opener] = {
    CAMUNDA: partial(camunda, policy=HASTY),
    STATES: partial(state_machine, visible_again=1),
}
FOREIGN: dict[str, Callable[[Any], Foreign]] = {CAMUNDA: Instances, STATES: Messages}


def claim_unreadable(run: Run, name: str, topic: str) -> None:
    """The claim about orders that nobody can read."""
    claim_foreign(run, name, OPENERS[name], FOREIGN[name], [topic])


def site_of(run: Run, shop: FatedShop, name: str, workers: int = 1, kill: RecordedKill | None = None) -> Site:
    return Site(shop, f"{run.name}_{name}", run.endpoints, run.folder, run.worker, workers, kill, run.keep)


def dying(run: Run, shop: FatedShop, name: str, ahead: int = 0) -> Site:
    """A site whose only worker dies when it has made the payment and told nobody. The history has the same name.

    `ahead`: so many sagas come before the one of that payment, and are carried out.
    """
    nth = ahead * len(STEPS) + CHARGE
    return site_of(
        run,
        shop,
        name,
        kill=RecordedKill(EffectWindow.AFTER, nth=nth, history=run.history_file(name), process="worker"),
    )


def second(run: Run, site: Site, engine: Engine, policy: Policy | None = None) -> Worker:
    """Another worker, which takes over. `policy` is that of a worker for Camunda."""
    name = f"{site.name}-second"
    if isinstance(engine, CamundaEngine):
        return run.worker(name, work_for_camunda, site.shop, engine.url, engine.camunda.tenant, policy)
    if isinstance(engine, StepFunctions):
        return run.worker(name, work_on_queues, site.shop, engine.sagas.machine)
    raise TypeError(f"{engine.name} is not of this experiment")


def one(run: Run, case: str) -> Order:
    """The order of a case; several may share a shop."""
    return next(orders(run.seed, 1, World(), case))


def durable(run: Run, count: int) -> list[Order]:
    """Orders whose payment fails until it is repaired, so that their sagas still run when the server is killed."""
    return list(orders(run.seed, count, World(), "durable"))


def repair(shop: FatedShop, wanted: Sequence[Order]) -> None:
    """From now on, their payments succeed."""
    with postgres.connect(shop.conninfos["payments"]) as connection:
        for order in wanted:
            mend(connection, Request(order.id, Action.CHARGE, order).id)


def await_reserved(shop: FatedShop, wanted: Sequence[Order]) -> None:
    """All of them have come to their payment, or stand right before it."""
    until("all stock to be reserved", lambda: reserved(shop, wanted) == len(wanted))


def forgotten(run: Run) -> list[Order]:
    """Orders that come no further than to their payment."""
    return list(orders(run.seed, 3, World(), "forgotten"))


def mixed(run: Run, wanted: Sequence[Order]) -> Fates:
    """Fates as the seed has them, but of the first order, which is refused at last, and of the second, which ends."""
    fixed = {(wanted[1].id, step): Fate.FINE for step in STEPS}
    fixed |= {(wanted[0].id, Action.SHIP): Fate.REFUSED, (wanted[1].id, Action.CHARGE): Fate.ANSWER_LOST}
    return Fates(run.seed, fixed=fixed)


def cases(run: Run, count: int) -> Fates:
    """The fates of all these orders' payments. Nothing else goes wrong."""
    wanted = {Fate.ANSWER_LOST: [one(run, case) for case in LOST]}
    wanted |= {Fate.BROKEN: [*durable(run, count), *forgotten(run)]}
    fixed = {(order.id, Action.CHARGE): fate for fate, some in wanted.items() for order in some}
    return Fates(steps={}, undos={}, fixed=fixed)


class Cases(FatedShop):
    """The shop that all cases share."""

    def standing(self) -> Standing:
        return judge(self)


def open_cases(run: Run, count: int) -> Cases:
    made = open_shop(run, "cases", cases(run, count))
    return Cases(made.conninfos, made.world, fates=made.fates)


def slug(name: str, window: str) -> str:
    """Names a history, and what is made on servers."""
    return f"{name} {window}".lower().replace(" ", "-")


@dataclass(frozen=True)
class Survived:
    """Orders on an engine whose worker was killed: how each ended to the engine, and how all stand in the services."""

    ended: dict[str, Ended]
    standing: Standing

    @property
    def completed(self) -> int:
        return sum(end.outcome is Outcome.COMPLETED for end in self.ended.values())


def kill_workers(run: Run, window: EffectWindow, count: int) -> dict[str, Survived]:
    """The same orders with the same fates on both; the first worker is killed, and a second one takes over."""
    wanted = list(orders(run.seed, count, World()))
    fates, sites = mixed(run, wanted), dict[str, Site]()
    for name in OPENERS:
        kill = RecordedKill(window, history=run.history_file(slug(name, window)), process=f"{name} worker")
        shop = open_shop(run, f"{len(sites)}{len(run.histories)}", fates)
        sites[name] = site_of(run, shop, slug(name, window), kill=kill)
    ended = carry_out(run, OPENERS, sites, wanted)
    for name in sites:
        run.judge(slug(name, window), variant=name, fault=f"SIGKILL {window}")
    return {name: Survived(ended[name], judge(site.shop)) for name, site in sites.items()}


def carry_out(
    run: Run, openers: Mapping[str, Opener], sites: Mapping[str, Site], wanted: Sequence[Order]
) -> dict[str, dict[str, Ended]]:
    """All orders on every engine, AT_ONCE at a time; returns, by engine, how each ended.

    The only worker of each engine dies at the first orders, and another takes over.
    """
    ended = {name: dict[str, Ended]() for name in sites}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(openers[name](site)) for name, site in sites.items()}
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            for order, engine in product(some, engines.values()):
                engine.start(order)
            for name, engine in engines.items() if first == 0 else ():
                engine.workers[0].wait()
                stack.enter_context(second(run, sites[name], engine, HASTY))
            for name, engine in engines.items():
                ended[name] |= wait(engine, [order.id for order in some])
    return ended


def out_of_time_on_camunda(run: Run, shop: FatedShop) -> Outcome:
    """By a timer of the saga, after its only worker has died."""
    site, order = dying(run, shop, "timer"), one(run, "timer")
    with camunda(site, PATIENT_LOCK) as engine:
        engine.start(order)
        engine.workers[0].wait()
        engine.camunda.hurry(order.id)
        with second(run, site, engine, PATIENT_LOCK):
            [end] = wait(engine, [order.id]).values()
    return end.outcome


def out_of_time(run: Run, shop: FatedShop) -> dict[str, tuple[str, int]]:
    """Step Functions, with a timeout of the whole machine, and with one of each step; by case, what `end_of` says.

    One saga ahead shows that the worker is up. The time begins with the next one, whose worker dies.
    """
    sites = {name: dying(run, shop, name, ahead=1) for name in ("step", "whole")}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(state_machine(site, visible_again=60)) for name, site in sites.items()}
        for name, engine in engines.items():
            engine.start(ahead := one(run, f"{name}-ahead"))
            wait(engine, [ahead.id])
        limit(engines["whole"])
        for name, engine in engines.items():
            engine.start(one(run, name), timeout=60 if name == "whole" else STEP_TIME)
        for name, engine in engines.items():  # the step first, whose attempts are counted
            engine.workers[0].wait()
            stack.enter_context(second(run, sites[name], engine))
        return {name: end_of(engine.sagas, one(run, name).id) for name, engine in engines.items()}


def limit(engine: StepFunctions) -> None:
    """Executions that begin from now on have WHOLE_TIME."""
    machine = engine.sagas.machine
    asl = {**definition(machine.queues), "TimeoutSeconds": WHOLE_TIME}
    engine.sagas.states.update_state_machine(stateMachineArn=machine.arn, definition=json.dumps(asl))


def killed(run: Run, history: str, server: Handle) -> float:
    """kill -9 a server and start it again, as the history says; returns the seconds that it was away."""
    began = time.monotonic()
    with Faults(run.recorder(history, "experiment")).down(server):
        pass
    return time.monotonic() - began


# The payment is made, its answer is lost, and nobody asks again.


def without_retries(asl: Definition) -> Definition:
    """The same, but a step that fails once has failed."""
    for step in STEPS:
        asl["States"][step]["Retry"] = []
    return asl


@dataclass(frozen=True)
class Left:
    """What became of a case. On Camunda, also: its instance's state, and whether all was undone at once."""

    order: Order
    outcome: Outcome
    state: str = ""
    at_once: bool = False


def lose_answers(
    run: Run, shop: FatedShop, diagrams: Mapping[str, bytes | None], machines: Mapping[str, Change | None]
) -> dict[str, Left]:
    """A case for each diagram of Camunda, and for each change of our state machine; none is our file as it is."""
    with ExitStack() as stack:
        enter, engines = stack.enter_context, dict[str, Engine]()
        drawn = {case: enter(camunda(site_of(run, shop, case), ONCE, bpmn)) for case, bpmn in diagrams.items()}
        engines.update(drawn)
        for case, change in machines.items():
            engines[case] = enter(state_machine(site_of(run, shop, case), partial(_changed, change)))
        for case, engine in engines.items():
            engine.start(one(run, case))
        found = {}
        for case, engine in engines.items():
            [end] = wait(engine, [one(run, case).id]).values()
            found[case] = Left(one(run, case), end.outcome)
        for case, asked in drawn.items():
            [instance] = asked.camunda.instances([one(run, case).id])
            at_once = overlap(asked.camunda, one(run, case), *UNDONE)
            found[case] = replace(found[case], state=instance.state, at_once=at_once)
        return found


def _changed(change: Change | None, asl: Definition) -> Definition:
    return change(without_retries(asl)) if change else without_retries(asl)


# The work takes longer than the lock.


@dataclass(frozen=True)
class Slowly:
    """Have the service carry it out; the first payment of an order takes its time to answer."""

    how: Ask

    def __call__(self, services: Services, request: Request, at: Hook) -> Reply:
        if request.action is not Action.CHARGE:
            return self.how(services, request, at)
        with (payments := services.connections["payments"]).transaction():  # what is charged is counted
            reply = self.how(services, request, at)
            number = _count(payments, request)
        _linger(payments, request, number)
        return reply


def outlast_lock(run: Run, shop: FatedShop, case: str, how: Ask) -> tuple[int, int]:
    """On Camunda, by workers that ask so: how often the payment was asked for, and how often the customer has paid."""
    hasty = Policy(lock=LOCK, wait=LOCK / 3, threads=2, batch=1)
    with camunda(site_of(run, shop, case), hasty, how=Slowly(how)) as engine:
        engine.start(one(run, case))
        wait(engine, [one(run, case).id])
    return attempts(shop, one(run, case))


def _count(payments: Connection, request: Request) -> int:
    """How often this payment has been asked for, this time included."""
    row = payments.execute(COUNT, [_slow(request)]).fetchone()
    return int(row[0]) if row else 0


def _linger(payments: Connection, request: Request, number: int) -> None:
    """The provider is slow at the first time: its answer comes when Camunda has lost patience, and not by luck."""
    if number == 1:
        until(f"{request.id} to be asked for again", lambda: payments.execute(ASKED, [_slow(request)]).fetchone())


def _slow(request: Request) -> str:
    """Its row in `attempts` is none that a fate counts in."""
    return f"{request.id}:slow"


# A server is killed while sagas run.


@dataclass(frozen=True)
class Back:
    """A Camunda that was killed and is back: for how long it was away, how many sagas ran, and what became of all."""

    away: float  # seconds
    running: int
    ended: int
    complete: int


def kill_camunda(run: Run, shop: FatedShop, count: int) -> Back:
    """While all sagas stand at their payment, which fails until it is mended, when the server is back."""
    wanted, server = durable(run, count), run.control("camunda")
    with camunda(site_of(run, shop, "durable"), PATIENT) as engine:
        for order in wanted:
            engine.start(order, timeout=600)  # however long the server takes to come back
        await_reserved(shop, wanted)
        running = count - len(engine.ended([order.id for order in wanted]))
        away = killed(run, "camunda-killed", server)
        repair(shop, wanted)
        ended = wait(engine, [order.id for order in wanted])
    complete = judge(shop).complete
    return Back(away, running, len(ended), sum(order.id in complete for order in wanted))


def kill_own_camunda(run: Run, count: int, **settings: str) -> int:
    """A server with these settings, killed when it has acknowledged so many sagas; returns how many are left."""
    wanted, server = durable(run, count), run.own("camunda", None, **settings)
    with Camunda(server.endpoint.url, run.name) as client:
        client.deploy()
        for order in wanted:
            client.start(order, timeout=600)
        killed(run, "camunda-forgets", server)
        return len(client.instances(order.id for order in wanted))


def kill_moto(run: Run, shop: FatedShop, server: Handle) -> tuple[int, list[Order], list[Order]]:
    """While sagas stand at their payment; the state machines that are left, the orders, and those that are half done.

    Nobody goes on with them: their worker is killed, too.
    """
    wanted = forgotten(run)
    site = replace(site_of(run, shop, "forgotten"), endpoints={"moto": server.endpoint})
    with state_machine(site) as engine:
        for order in wanted:
            engine.start(order)
        await_reserved(shop, wanted)
        engine.workers[0].kill()
        killed(run, "moto-killed", server)
        left = engine.sagas.states.list_state_machines()["stateMachines"]
    half = judge(shop).inconsistent
    return len(left), wanted, [order for order in wanted if order.id in half]


# What is left: traces in the services, in Camunda and on moto.


CHARGED = """
select coalesce((select number from attempts where request_id = %s), 0), charged from charges where order_id = %s
"""


def attempts(shop: Shop, order: Order) -> tuple[int, int]:
    """How often the slow payment was asked for (others do not count), and how often the customer has paid."""
    with postgres.connect(shop.conninfos["payments"]) as connection:
        found = connection.execute(CHARGED, [f"{order.id}:{Action.CHARGE}:slow", order.id]).fetchone()
    return found or (0, 0)


def reserved(shop: Shop, wanted: Iterable[Order]) -> int:
    """How many of these orders have their stock."""
    query, names = "select count(*) from reservations where order_id = any(%s)", [order.id for order in wanted]
    with postgres.connect(shop.conninfos["stock"]) as connection:
        (count,) = connection.execute(query, [names]).fetchone() or (0,)
    return int(count)


def said(standing: Standing, order: Order) -> list[str]:
    """What is wrong with this order."""
    return [violation for violation in standing.violations if violation.startswith(f"{order.id}:")]


def overlap(client: Camunda, order: Order, first: Action, second: Action) -> bool:
    """Whether Camunda had the second begun before the first was done."""
    [instance] = client.instances([order.id])
    by_id = {activity.id: activity for activity in client.activities(instance)}
    ended, began = by_id[first].ended, by_id[second].began
    return ended is None or began is None or began < ended


def end_of(sagas: Executions, saga: str) -> tuple[str, int]:
    """Wait for the end of an execution, whichever; returns its status, and how many attempts were out of time."""

    def status() -> str:
        found = sagas.look(saga)
        return found.status if found and found.status != "RUNNING" else ""

    ended, arn = until(f"saga {saga} to end", status, 60), sagas.machine.execution(saga)
    events = sagas.states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return ended, sum(event["type"] == "TaskTimedOut" for event in events)
