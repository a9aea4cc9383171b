"""A process dies in the middle of an order: what is left half done, and who has to wait for it?

The same order is carried out in five ways, each killed between any two of its steps: four calls in a row, the same
under a lock without and with a lease, two-phase commit, and the simplest saga. Then other orders come, of the same
customer or product, and one that cannot be paid. At last it is measured for how long a saga can be seen half done. The
ways are four_calls, locked_calls and two_phase (saga/wrong/nosaga.py), and the saga: carry_out (saga/plain.py).
"""

import math
from collections.abc import Sequence
from typing import Any

from saga import plain
from saga.order import orders
from saga.services.invariant import Ending, judge
from saga.services.shop import SERVICES
from saga.stage import no_saga as ways
from saga.stage.fates import Fates
from saga.stage.killing import RecordedKill
from saga.stage.no_saga import LEASE, OTHERS, Case, Site, Way
from saga.windows import CallWindow
from saga.wrong.nosaga import CommitWindow, in_doubt, resolve

from shared import postgres
from shared.experiment import Experiment, Run
from shared.faults import Faults
from shared.servers.handle import Handle

NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(
    title="No saga: calls, locks, two-phase commit", servers=("postgres",), topics=(NO_LOCKS, EVENTUAL)
)
HALF_DONE = (CallWindow.PLACED, CallWindow.RESERVED, CallWindow.CHARGED)
# Whose rows are locked by what is prepared and not ended. The first two to prepare are orders and stock.


@experiment.run
def main(run: Run) -> None:
    run.parameters.update({"other orders after each kill": OTHERS})
    cases: dict[Way, list[Case]] = {way: [] for way in (Way.CALLS, Way.LOCK, Way.LEASE, Way.SAGA, Way.TWO_PHASE)}
    unpaid: dict[Way, tuple[Ending | None, str]] = {}
    leased = ways.open_site(run, run.endpoints["postgres"], Way.LEASE)
    with run.step(f"{Way.LEASE}: kill -9 between any two"):  # first: the leases run out while others are killed
        cases[Way.LEASE] = [ways.kill_once(run, leased, Way.LEASE, window) for window in HALF_DONE]
    for way in (Way.CALLS, Way.LOCK, Way.SAGA):
        with run.step(f"{way}: kill -9 between any two"):
            site = ways.open_site(run, run.endpoints["postgres"], way)
            cases[way] = [ways.kill_once(run, site, way, window) for window in CallWindow]
            finish(run, site, way, cases[way])
            unpaid[way] = ways.cannot_pay(site, way)
    with run.step(f"{Way.LEASE}: when it has run out"):
        outlast(run, leased, Way.LEASE, cases[Way.LEASE])
    with run.step("a Postgres of its own, for prepared transactions"):
        server = run.own("postgres", max_prepared_transactions="40")
    with run.step(f"{Way.TWO_PHASE}: kill -9 the coordinator"):
        site = ways.open_site(run, server.endpoint, Way.TWO_PHASE)
        cases[Way.TWO_PHASE] = [ways.kill_once(run, site, Way.TWO_PHASE, window) for window in CommitWindow]
    with run.step("kill -9 the database, and then an operator comes"):
        operate(run, site, server, cases[Way.TWO_PHASE])
        unpaid[Way.TWO_PHASE] = ways.cannot_pay(site, Way.TWO_PHASE)
    note(run, cases)
    claim_unpaid(run, unpaid)
    with run.step("look at orders while they are carried out"):
        look(run)


def finish(run: Run, site: Site, way: Way, cases: Sequence[Case]) -> None:
    """What the kills left is taken up by the next process, where there is a log to take it up from."""
    if way is Way.SAGA:
        run.worker("next", ways.carry_out_all, site, []).wait()
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
            fact="; ".join(f"{case.window}: {ways.said(standing.violations, case.order)}" for case in left),
            variant=way,
            wrong_way=True,
        )


def outlast(run: Run, site: Site, way: Way, cases: Sequence[Case]) -> None:
    """The leases of the dead run out, and the others come again."""
    ways.until_free(site)
    late = [waiting for case in cases for waiting in ways.held_up(site, way, ways.others(site, case.order, "late"))]
    standing = judge(site.shop)
    half = [case for case in cases if standing.endings.get(case.order.id) is Ending.INCONSISTENT]
    too_early = [order for case in cases for order in ways.entered(site, case.order, before=case.lock_ends)]
    waited = sum(len(case.waiting) for case in cases)
    run.claim(
        "a lock with a lease keeps the others out until it has run out; then they go on beside the half order",
        waited > 0 and not too_early and not late and {case.window for case in half} == set(HALF_DONE),
        topics=[NO_LOCKS],
        fact=f"{waited} had to wait for a lease of {LEASE:g} s, {len(late)} after it; {len(half)} orders half done",
        variant=way,
        wrong_way=True,
    )


def claim_unpaid(run: Run, unpaid: dict[Way, tuple[Ending | None, str]]) -> None:
    run.claim(
        "four calls in a row: nobody has died, but a customer cannot pay, and the order stays half done",
        unpaid[Way.CALLS][0] is Ending.INCONSISTENT,
        topics=[EVENTUAL],
        fact=unpaid[Way.CALLS][1],
        variant=Way.CALLS,
        wrong_way=True,
    )
    run.claim(
        "when a customer cannot pay, two-phase commit leaves nothing of the order, and a saga undoes it",
        (unpaid[Way.TWO_PHASE], unpaid[Way.SAGA]) == ((None, ""), (Ending.COMPENSATED, "")),
        topics=[EVENTUAL],
        fact=f"two-phase commit: {unpaid[Way.TWO_PHASE][0]}, a saga: {unpaid[Way.SAGA][0]}",
        variant=Way.SAGA,
    )


def operate(run: Run, site: Site, server: Handle, cases: Sequence[Case]) -> None:
    """The locks outlive the database's process. They end when somebody says how each order is to end."""
    two_phase = run.about(Way.TWO_PHASE, wrong_way=True, topics=[NO_LOCKS])
    by_window = {case.window: case for case in cases}
    before = in_doubt(site.shop)
    with Faults(run.recorder("database", "experiment")).down(server):
        pass
    run.judge("database", variant=Way.TWO_PHASE, wrong_way=True, fault="SIGKILL, restart")
    after = in_doubt(site.shop)
    late = {case.window: ways.held_up(site, Way.TWO_PHASE, ways.others(site, case.order, "late")) for case in cases}
    expected = {window: len(ways.ROWS_LOCKED.get(window, ())) for window in CommitWindow}
    two_phase.claim(
        "two-phase commit: what is prepared keeps its rows locked, the customer's and the product's, until its outcome"
        " is known, also when the database was killed and has recovered; every other order that needs them waits",
        {window: len(waiting) for window, waiting in late.items()} == expected and after == before,
        fact=f"{sum(map(len, late.values()))} of {OTHERS * len(cases)} wait for {len(after)} prepared transactions",
    )
    patience = run.pick(smoke=0.2, demo=2.0, full=10.0)
    dead = by_window[CommitWindow.PREPARED].order
    freed = ways.free(run, site, dead, patience)
    two_phase.claim(
        "an order that waits for a dead coordinator waits until an operator ends the prepared transactions by hand",
        (freed.blockers, freed.ended, freed.standing) == ([(dead.id, "payments")], len(SERVICES), Ending.COMPLETE),
        fact=f"it waited {freed.waited:.1f} s for what was prepared in {freed.blockers[0][1]}, {freed.ended} were ended"
        f" by hand, and {freed.more * 1000:.0f} ms later it was {freed.standing}",
    )
    guess(run, site, by_window)


def guess(run: Run, site: Site, by_window: dict[Any, Case]) -> None:
    """One order was decided to be committed, and one service has done it. The other three do not know."""
    two_phase = run.about(Way.TWO_PHASE, wrong_way=True, topics=[NO_LOCKS])
    preparing, committing = (by_window[window].order for window in (CommitWindow.PREPARING, CommitWindow.COMMITTING))
    resolve(site.shop, preparing.id, commit=False)
    resolve(site.shop, committing.id, commit=False)
    standing = judge(site.shop)
    two_phase.claim(
        "an operator who rolls back what the coordinator had decided to commit leaves the order half done for good",
        standing.endings.get(committing.id) is Ending.INCONSISTENT and in_doubt(site.shop) == [],
        fact=ways.said(standing.violations, committing),
    )


def note(run: Run, cases: dict[Way, list[Case]]) -> None:
    for way, killed in cases.items():
        for case in killed:
            where: dict[str, Any] = {"variant": way, "wrong_way": way is not Way.SAGA, "x": case.window}
            half = case.standing is Ending.INCONSISTENT
            run.figure("orders left half done", half, "orders", **where, x_label="killed")
            run.figure("other orders that wait", len(case.waiting), "orders", **where, x_label="killed")
    waiting = {way: sum(len(case.waiting) for case in killed) for way, killed in cases.items()}
    count = OTHERS * len(CallWindow)
    run.claim(
        "a lock without a lease never ends when its holder is dead, and keeps out every other order that needs it",
        waiting[Way.LOCK] == 2 * len(CallWindow) and {case.lock_ends for case in cases[Way.LOCK]} == {math.inf},
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
    saga = run.about(Way.SAGA, topics=[EVENTUAL])
    count = run.pick(smoke=40, demo=200, full=600)
    site = ways.open_site(run, run.endpoints["postgres"], "look", Fates(run.seed))
    todo = list(orders(run.seed, count, ways.WORLD))
    kill = RecordedKill(CallWindow.CHARGED, nth=count // 2, history=run.history_file("look"))
    worker = run.worker("saga", ways.carry_out_all, site, todo, kill)
    looks = ways.watch(site, worker)
    run.judge("look", variant=Way.SAGA, fault=f"SIGKILL {CallWindow.CHARGED}")
    dead = judge(site.shop).count(Ending.INCONSISTENT)
    looks += ways.watch(site, run.worker("saga", ways.carry_out_all, site, todo))
    standing = judge(site.shop)
    spans = [1000 * (last - first) for first, last in ways.spans(site.shop).values()]
    saga.figure("an order is half done for", spans, "ms")
    saga.figure("looks that see an order half done", 100 * sum(looks) / len(looks), "%")
    with postgres.connect(site.own) as log:
        still = len(plain.unfinished(log))
    saga.claim(
        "orders can be seen half done while their sagas run, one as long as its process is dead, and none at the end",
        any(looks) and dead == 1 and not standing.violations and still == 0,
        fact=f"{sum(looks)} of {len(looks)} looks saw one; {standing.count(Ending.COMPLETE)} complete,"
        f" {standing.count(Ending.COMPENSATED)} compensated, {len(standing.violations)} violations",
    )


if __name__ == "__main__":
    experiment.main()
