"""What experiment 05 needs: sites, orders that are cases, workers that die, and the traces that are left of them."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product

from saga.engines.camunda.client import Camunda
from saga.engines.camunda.worker import Policy
from saga.engines.camunda.worker import work as work_for_camunda
from saga.engines.stepfunctions.client import Definition, Sagas, definition
from saga.engines.stepfunctions.worker import work as work_on_queues
from saga.order import STEPS, Action, Order, Reply, Request, World, orders
from saga.services.invariant import Standing
from saga.services.shop import Services, Shop
from saga.stage.engines import Ended, Engine, Opener, Site, wait
from saga.stage.engines.camunda import CamundaEngine
from saga.stage.engines.stepfunctions import StepFunctions
from saga.stage.engines.stepfunctions import opened as state_machine
from saga.stage.fates import COUNT, Fate, FatedShop, Fates, mend
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow, Hook
from saga.wrong.keyless import charge_again
from saga.wrong.stepfunctions_catch import as_samples_catch
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
HASTY, PATIENT = Policy(lock=2.0), Policy(attempts=1_000, longest=0.3)
LOCK = 0.3  # seconds: shorter than the work, which is not over before it is asked for again
ASKED = "select number from attempts where request_id = %s and number > 1"
LOST = "drawn", "mended", "caught", "mended-catch"  # cases whose payment is made, and its first answer lost


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


def slug(name: str, window: str) -> str:
    """Names a history, and what is made on servers."""
    return f"{name} {window}".lower().replace(" ", "-")


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


def without_retries(asl: Definition) -> Definition:
    """The same, but a step that fails once has failed."""
    for step in STEPS:
        asl["States"][step]["Retry"] = []
    return asl


def samples(asl: Definition) -> Definition:
    return as_samples_catch(without_retries(asl))


# The work takes longer than the lock.


def slowly(services: Services, request: Request, at: Hook) -> Reply:
    """Have the service carry it out; the first payment of an order takes its time to answer."""
    reply = services(request, at=at)
    if request.action is Action.CHARGE:
        _linger(services.connections["payments"], request, _count(services.connections["payments"], request))
    return reply


def slowly_without_a_key(services: Services, request: Request, at: Hook) -> Reply:
    """Likewise, but the payment service does not remember what it has been asked."""
    if request.action is not Action.CHARGE:
        return services(request, at=at)
    with (payments := services.connections["payments"]).transaction():  # what is charged is counted
        charge_again(payments, request.order)
        number = _count(payments, request)
    _linger(payments, request, number)
    return Reply(request.saga, request.action)


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


def overlap(camunda: Camunda, order: Order, first: Action, second: Action) -> bool:
    """Whether Camunda had the second begun before the first was done."""
    [instance] = camunda.instances([order.id])
    by_id = {activity.id: activity for activity in camunda.activities(instance)}
    ended, began = by_id[first].ended, by_id[second].began
    return ended is None or began is None or began < ended


def end_of(sagas: Sagas, saga: str) -> tuple[str, int]:
    """Wait for the end of an execution, whichever; returns its status, and how many attempts were out of time."""

    def status() -> str:
        found = sagas.look(saga)
        return found.status if found and found.status != "RUNNING" else ""

    ended, arn = until(f"saga {saga} to end", status, 60), sagas.machine.execution(saga)
    events = sagas.states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return ended, sum(event["type"] == "TaskTimedOut" for event in events)
