"""A process dies in the middle of an order: what is left half done, and who has to wait for it?

The same order is carried out in four ways, each killed between any two of its steps: four calls in a row, the same
under a lock, two-phase commit, and the simplest saga. Then other orders come, of the same customer or product. At last
the saga's other side is measured: for how long an order can be seen half done.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from saga import plain
from saga.fates import KIND, Fates
from saga.invariant import Ending, judge
from saga.nosaga import CallWindow, CommitWindow, in_doubt, resolve
from saga.order import Order, World, orders
from saga.services.shop import SERVICES
from saga.ways import Site, Way, build, carry_out_all, die, held_up, until_waiting, wait_for_turn
from saga.windows import Kill

from shared import postgres
from shared.experiment import Experiment, Run
from shared.faults import Faults
from shared.servers.handle import Handle
from shared.servers.server import Endpoint

NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(
    title="No saga: calls, locks, two-phase commit", servers=("postgres",), topics=(NO_LOCKS, EVENTUAL)
)
WORLD = World(customers=20, products=12)
HALF_DONE = (CallWindow.PLACED, CallWindow.RESERVED, CallWindow.CHARGED)
# Whose rows are locked by what is prepared and not ended. The first two to prepare are orders and stock.
ROWS_LOCKED = {
    CommitWindow.PREPARING: ("product",),
    CommitWindow.PREPARED: ("product", "customer"),
    CommitWindow.COMMITTING: ("product", "customer"),
}
EACH = 2  # other orders of the same customer, of the same product, and of neither


@dataclass(frozen=True)
class Case:
    """One kill: how the order stands, and which other orders wait, before anybody does anything about it."""

    window: StrEnum
    order: Order
    standing: Ending | None  # None: no service knows it
    waiting: list[str] = field(default_factory=list)


@experiment.run
def main(run: Run) -> None:
    run.parameters.update({"other orders after each kill": 3 * EACH})
    cases: dict[Way, list[Case]] = {}
    for way in (Way.CALLS, Way.LOCK, Way.SAGA):
        with run.step(f"{way}: kill -9 between any two"):
            site = open_site(run, run.endpoints["postgres"], way)
            cases[way] = [kill_once(run, site, way, window) for window in CallWindow]
            finish(run, site, way, cases[way])
    with run.step("a Postgres of its own, for prepared transactions"):
        server = run.own("postgres", max_prepared_transactions="40")
    with run.step(f"{Way.TWO_PHASE}: kill -9 the coordinator"):
        site = open_site(run, server.endpoint, Way.TWO_PHASE)
        cases[Way.TWO_PHASE] = [kill_once(run, site, Way.TWO_PHASE, window) for window in CommitWindow]
    with run.step("kill -9 the database, and then an operator comes"):
        operate(run, site, server, cases[Way.TWO_PHASE])
    note(run, cases)
    with run.step("look at orders while they are carried out"):
        look(run)


def open_site(run: Run, database: Endpoint, name: str, fates: Fates = KIND) -> Site:
    prefix = f"{run.name}_{name.split()[-1].replace('-', '_')}"
    if not run.keep:
        for part in (*SERVICES, "own"):
            run.cleanup(partial(postgres.drop_schema, database, f"{prefix}_{part}"))
    return build(database, prefix, fates, WORLD)


def kill_once(run: Run, site: Site, way: Way, window: StrEnum) -> Case:
    """Each window has a customer and a product of its own."""
    number = list(type(window)).index(window)
    order = Order(f"killed-{number}", WORLD.customer_names()[number], WORLD.product_names()[number], 1, 500)
    history = f"{way} {window}".replace(" ", "-")
    run.worker("coordinator", die, site, way, order, Kill(window, run.history_file(history))).wait()
    run.judge(history, variant=way, wrong_way=way is not Way.SAGA, fault=f"SIGKILL {window}")
    standing = judge(site.shop).endings.get(order.id)
    return Case(window, order, standing, held_up(site, way, others(order, "early")))


def others(order: Order, when: str) -> list[Order]:
    """Orders that come later: of the same customer, of the same product, and of neither."""
    customer, product = WORLD.customer_names()[-1], WORLD.product_names()[-1]
    whose = {
        "customer": (order.customer, product),
        "product": (customer, order.product),
        "neither": (customer, product),
    }
    return [
        Order(f"{when}-{order.id}-{same}-{number}", *of, 1, 500) for same, of in whose.items() for number in range(EACH)
    ]


def finish(run: Run, site: Site, way: Way, cases: Sequence[Case]) -> None:
    """What the kills left is taken up by the next process, where there is a log to take it up from."""
    if way is Way.SAGA:
        run.worker("next", carry_out_all, site, []).wait()
    standing = judge(site.shop)
    left = [case for case in cases if standing.endings.get(case.order.id) is Ending.INCONSISTENT]
    if way is Way.SAGA:
        complete = sum(standing.endings.get(case.order.id) is Ending.COMPLETE for case in cases)
        run.claim(
            "a saga: killed between any two steps, the next process takes it up from its log and completes it",
            complete == len(cases) and not standing.violations,
            topics=[EVENTUAL],
            fact=f"{complete} of {len(cases)} complete, {len(standing.violations)} violations",
            variant=way,
        )
    else:
        run.claim(
            f"{way}: killed between any two calls, the order stays half done, and nothing will ever finish it",
            {case.window for case in left} == set(HALF_DONE) and len(standing.violations) == len(HALF_DONE),
            topics=[EVENTUAL],
            fact="; ".join(f"{case.window}: {said(standing.violations, case.order)}" for case in left),
            variant=way,
            wrong_way=True,
        )


def said(violations: Sequence[str], order: Order) -> str:
    return next((one.partition(": ")[2] for one in violations if one.startswith(order.id)), "nothing wrong")


def operate(run: Run, site: Site, server: Handle, cases: Sequence[Case]) -> None:
    """The locks outlive the database's process. They end when somebody says how each order is to end."""
    by_window = {case.window: case for case in cases}
    before = in_doubt(site.shop)
    with Faults(run.recorder("database", "experiment")).down(server):
        pass
    run.judge("database", variant=Way.TWO_PHASE, wrong_way=True, fault="SIGKILL, restart")
    after = in_doubt(site.shop)
    late = {case.window: held_up(site, Way.TWO_PHASE, others(case.order, "late")) for case in cases}
    expected = {window: len(ROWS_LOCKED.get(window, ())) * EACH for window in CommitWindow}
    run.claim(
        "two-phase commit: what is prepared keeps its rows locked, the customer's and the product's, until its outcome"
        " is known, also when the database was killed and has recovered; every other order that needs them waits",
        {window: len(waiting) for window, waiting in late.items()} == expected and after == before,
        topics=[NO_LOCKS],
        fact=f"{sum(map(len, late.values()))} of {3 * EACH * len(cases)} wait for {len(after)} prepared transactions",
        variant=Way.TWO_PHASE,
        wrong_way=True,
    )
    patience = run.pick(smoke=0.2, demo=2.0, full=10.0)
    waited, freed, ended = free(run, site, by_window[CommitWindow.PREPARED].order, patience)
    run.claim(
        "an order that waits for a dead coordinator waits until an operator ends the prepared transactions by hand",
        ended == len(SERVICES) and waited > patience,
        topics=[NO_LOCKS],
        fact=f"it waited {waited:.1f} s until {ended} were ended by hand, and {freed * 1000:.0f} ms more",
        variant=Way.TWO_PHASE,
        wrong_way=True,
    )
    guess(run, site, by_window)


def free(run: Run, site: Site, order: Order, patience: float) -> tuple[float, float, int]:
    """Another order of the customer waits; after so many seconds an operator decides.

    Returns the seconds for which it has waited then, those until it is done, and how many transactions were ended.
    """
    began = time.monotonic()
    waiting = run.worker("waiting", wait_for_turn, site, others(order, "waiting")[0])
    until_waiting(site, patience)
    decided = time.monotonic()
    ended = resolve(site.shop, order.id, commit=False)
    waiting.wait()
    return decided - began, time.monotonic() - decided, ended


def guess(run: Run, site: Site, by_window: dict[Any, Case]) -> None:
    """One order was decided to be committed, and one service has done it. The other three do not know."""
    preparing, committing = (by_window[window].order for window in (CommitWindow.PREPARING, CommitWindow.COMMITTING))
    resolve(site.shop, preparing.id, commit=False)
    resolve(site.shop, committing.id, commit=False)
    standing = judge(site.shop)
    run.claim(
        "an operator who rolls back what the coordinator had decided to commit leaves the order half done for good",
        standing.endings.get(committing.id) is Ending.INCONSISTENT and in_doubt(site.shop) == [],
        topics=[NO_LOCKS],
        fact=said(standing.violations, committing),
        variant=Way.TWO_PHASE,
        wrong_way=True,
    )


def note(run: Run, cases: dict[Way, list[Case]]) -> None:
    for way, killed in cases.items():
        for case in killed:
            where: dict[str, Any] = {"variant": way, "wrong_way": way is not Way.SAGA, "x": case.window}
            half = case.standing is Ending.INCONSISTENT
            run.figure("orders left half done", half, "orders", **where, x_label="killed")
            run.figure("other orders that wait", len(case.waiting), "orders", **where, x_label="killed")
    waiting = {way: sum(len(case.waiting) for case in killed) for way, killed in cases.items()}
    count = 3 * EACH * len(CallWindow)
    run.claim(
        "a lock that nobody is left to give back keeps out every other order of the customer and of the product",
        waiting[Way.LOCK] == 2 * EACH * len(CallWindow),
        topics=[NO_LOCKS],
        fact=f"{waiting[Way.LOCK]} of {count} wait",
        variant=Way.LOCK,
        wrong_way=True,
    )
    run.claim(
        "a saga holds no lock between its steps: killed in the middle, it makes no other order wait",
        waiting[Way.SAGA] == 0 and any(case.standing is Ending.INCONSISTENT for case in cases[Way.SAGA]),
        topics=[NO_LOCKS],
        fact=f"{waiting[Way.SAGA]} of {count} wait",
        variant=Way.SAGA,
    )


def look(run: Run) -> None:
    """Orders under the seeded failures, looked at from outside all the time; the process is killed in the middle."""
    count = run.pick(smoke=40, demo=200, full=600)
    site = open_site(run, run.endpoints["postgres"], "look", Fates(run.seed))
    todo = list(orders(run.seed, count, WORLD))
    kill = Kill(CallWindow.CHARGED, run.history_file("look"), nth=count // 2)
    worker = run.worker("saga", carry_out_all, site, todo, kill)
    looks = watch(site, worker)
    run.judge("look", variant=Way.SAGA, fault=f"SIGKILL {CallWindow.CHARGED}")
    dead = judge(site.shop).count(Ending.INCONSISTENT)
    looks += watch(site, run.worker("saga", carry_out_all, site, todo))
    standing = judge(site.shop)
    spans = [1000 * seconds for seconds in plain.in_between(site.shop).values()]
    run.figure("an order is half done for", spans, "ms", variant=Way.SAGA)
    run.figure("looks that see an order half done", 100 * sum(looks) / len(looks), "%", variant=Way.SAGA)
    with postgres.connect(site.own) as log:
        still = len(plain.unfinished(log))
    run.claim(
        "orders can be seen half done while their sagas run, one as long as its process is dead, and none at the end",
        any(looks) and dead == 1 and not standing.violations and still == 0,
        topics=[EVENTUAL],
        fact=f"{sum(looks)} of {len(looks)} looks saw one; {standing.count(Ending.COMPLETE)} complete,"
        f" {standing.count(Ending.COMPENSATED)} compensated, {len(standing.violations)} violations",
        variant=Way.SAGA,
    )


def watch(site: Site, worker: Any) -> list[bool]:
    """Look until the process is dead, or done; whether each look saw an order half done."""
    looks = []
    while worker.alive():
        looks.append(judge(site.shop).count(Ending.INCONSISTENT) > 0)
    worker.wait()
    return looks


if __name__ == "__main__":
    experiment.main()
