"""A process dies in the middle of an order: what is left half done, and who has to wait for it?

The same order is carried out in five ways, each killed between any two of its steps: four calls in a row, the same
under a lock without and with a lease, two-phase commit, and the simplest saga. Then other orders come, of the same
customer or product, and one that cannot be paid. At last it is measured for how long a saga can be seen half done. The
ways are four_calls, locked_calls and two_phase (saga/wrong/nosaga.py), and the saga: carry_out (saga/plain.py).
"""

import math
from collections.abc import Sequence
from functools import partial

from saga.plain import carry_out
from saga.services.invariant import Ending, judge
from saga.stage import no_saga as stage
from saga.windows import CallWindow
from saga.wrong.nosaga import PARTIES, CommitWindow, four_calls, in_doubt, locked_calls, resolve, two_phase

from shared.experiment import Experiment, Run

NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(
    title="No saga: calls, locks, two-phase commit", servers=("postgres",), topics=(NO_LOCKS, EVENTUAL)
)
CALLS = stage.ByServices("four calls in a row", four_calls)
LOCK = stage.WithDatabase("a lock around four calls", locked_calls)
LEASE = stage.WithDatabase("a lock with a lease", partial(locked_calls, lease=stage.LEASE))
TWO_PHASE = stage.ByDatabases("two-phase commit", two_phase)
SAGA = stage.WithDatabase("a saga", carry_out, wrong=False)
HALF_DONE = (CallWindow.PLACED, CallWindow.RESERVED, CallWindow.CHARGED)
Killed = Sequence[stage.Aftermath]


@experiment.run
def main(run: Run) -> None:
    run.parameters.update({"other orders after each kill": stage.OTHERS})
    killed, unpaid, shared = dict[stage.Way, Killed](), dict[stage.Way, stage.Unpaid](), run.endpoints["postgres"]
    leased = stage.open_premises(run, shared, LEASE.name)
    with run.step(f"{LEASE}: kill -9 between any two"):  # first: the leases run out while others are killed
        killed[LEASE] = stage.kill(run, leased, LEASE, HALF_DONE)
    for way in (CALLS, LOCK, SAGA):
        with run.step(f"{way}: kill -9 between any two"):
            premises = stage.open_premises(run, shared, way.name)
            killed[way] = stage.kill(run, premises, way, CallWindow)
            (finish if way is SAGA else leave)(run, premises, way, killed[way])
            unpaid[way] = stage.cannot_pay(premises, way)
    with run.step(f"{LEASE}: when it has run out"):
        outlast(run, leased, killed[LEASE])
    with run.step("a Postgres of its own, for prepared transactions"):
        server = run.own("postgres", max_prepared_transactions="40")
    with run.step(f"{TWO_PHASE}: kill -9 the coordinator"):
        premises = stage.open_premises(run, server.endpoint, TWO_PHASE.name)
        killed[TWO_PHASE] = stage.kill(run, premises, TWO_PHASE, CommitWindow)
    with run.step("kill -9 the database, and then an operator comes"):
        before = in_doubt(premises.shop)
        stage.crash(run, server, TWO_PHASE)
        operate(run, premises, killed[TWO_PHASE], still=in_doubt(premises.shop) == before)
        unpaid[TWO_PHASE] = stage.cannot_pay(premises, TWO_PHASE)
    claim_waiting(run, killed)
    claim_unpaid(run, unpaid)
    with run.step("look at orders while they are carried out"):
        look(run)


def leave(run: Run, premises: stage.Premises, way: stage.Way, killed: Killed) -> None:
    """There is no log to take up from what the kills left."""
    standing = judge(premises.shop)
    left = [each for each in killed if each.order.id in standing.inconsistent]
    run.about(way.name, wrong_way=True, topics=[EVENTUAL]).claim(
        f"{way}: killed between any two calls, the order stays half done, and nothing will ever finish it",
        {each.window for each in left} == set(HALF_DONE) and len(standing.violations) == len(HALF_DONE),
        fact="; ".join(f"{each.window}: {stage.said(standing.violations, each.order)}" for each in left),
    )


def finish(run: Run, premises: stage.Premises, way: stage.Way, killed: Killed) -> None:
    """What the kills left is taken up by the next process."""
    stage.resume(run, premises)
    standing = judge(premises.shop)
    complete = sum(each.order.id in standing.complete for each in killed)
    run.about(way.name, topics=[EVENTUAL]).claim(
        "a saga: killed between any two steps, the next process takes it up from its log and completes it",
        complete == len(killed) and not standing.violations,
        fact=f"{complete} of {len(killed)} complete, {len(standing.violations)} violations",
    )


def outlast(run: Run, premises: stage.Premises, killed: Killed) -> None:
    """The leases of the dead run out, and the others come again."""
    stage.until_free(premises)
    late = sum(map(len, stage.held_up_late(premises, LEASE, killed).values()))
    half = {each.window for each in killed if each.order.id in judge(premises.shop).inconsistent}
    waited = sum(len(each.waiting) for each in killed)
    run.about(LEASE.name, wrong_way=True, topics=[NO_LOCKS]).claim(
        "a lock with a lease keeps the others out until it has run out; then they go on beside the half order",
        waited > 0 and not stage.too_early(premises, killed) and not late and half == set(HALF_DONE),
        fact=f"{waited} had to wait for a lease of {stage.LEASE:g} s, {late} after it; {len(half)} orders half done",
    )


def operate(run: Run, premises: stage.Premises, killed: Killed, still: bool) -> None:
    """The locks outlive the database's process. They end when somebody says how each order is to end."""
    blocking = run.about(TWO_PHASE.name, wrong_way=True, topics=[NO_LOCKS])
    order_of = {each.window: each.order for each in killed}
    late = {window: len(found) for window, found in stage.held_up_late(premises, TWO_PHASE, killed).items()}
    blocking.claim(
        "two-phase commit: what is prepared keeps its rows locked, the customer's and the product's, until its outcome"
        " is known, also when the database was killed and has recovered; every other order that needs them waits",
        still and late == {window: len(stage.ROWS_LOCKED.get(window, ())) for window in CommitWindow},
        fact=f"{sum(late.values())} of {stage.OTHERS * len(killed)} wait for {len(in_doubt(premises.shop))}"
        " prepared transactions",
    )
    dead = order_of[CommitWindow.PREPARED]
    freed = stage.free(run, premises, dead, run.pick(smoke=0.2, demo=2.0, full=10.0))
    blocking.claim(
        "an order that waits for a dead coordinator waits until an operator ends the prepared transactions by hand",
        (freed.blockers, freed.ended, freed.standing) == ([(dead.id, "payments")], len(PARTIES), Ending.COMPLETE),
        fact=f"it waited {freed.waited:.1f} s for what was prepared in {freed.blockers[0][1]}, {freed.ended} were ended"
        f" by hand, and {freed.more * 1000:.0f} ms later it was {freed.standing}",
    )
    # One order was decided to be committed, and one service has done it. The other three do not know.
    committing = order_of[CommitWindow.COMMITTING]
    for order in (order_of[CommitWindow.PREPARING], committing):
        resolve(premises.shop, order.id, commit=False)
    standing = judge(premises.shop)
    blocking.claim(
        "an operator who rolls back what the coordinator had decided to commit leaves the order half done for good",
        committing.id in standing.inconsistent and in_doubt(premises.shop) == [],
        fact=stage.said(standing.violations, committing),
    )


def claim_waiting(run: Run, killed: dict[stage.Way, Killed]) -> None:
    for way in (CALLS, LOCK, LEASE, SAGA, TWO_PHASE):
        about = run.about(way.name, wrong_way=way.wrong)
        for each in killed[way]:
            half = each.standing is Ending.INCONSISTENT
            about.figure("orders left half done", half, "orders", x=each.window, x_label="killed")
            about.figure("other orders that wait", len(each.waiting), "orders", x=each.window, x_label="killed")
    locked, free = (sum(len(each.waiting) for each in killed[way]) for way in (LOCK, SAGA))
    count = stage.OTHERS * len(CallWindow)
    run.about(LOCK.name, wrong_way=True, topics=[NO_LOCKS]).claim(
        "a lock without a lease never ends when its holder is dead, and keeps out every other order that needs it",
        locked == 2 * len(CallWindow) and {each.lock_ends for each in killed[LOCK]} == {math.inf},
        fact=f"{locked} of {count} wait",
    )
    run.about(SAGA.name, topics=[NO_LOCKS]).claim(
        "a saga holds no lock between its steps: killed in the middle, it makes no other order wait",
        free == 0 and any(each.standing is Ending.INCONSISTENT for each in killed[SAGA]),
        fact=f"{free} of {count} wait",
    )


def claim_unpaid(run: Run, unpaid: dict[stage.Way, stage.Unpaid]) -> None:
    run.about(CALLS.name, wrong_way=True, topics=[EVENTUAL]).claim(
        "four calls in a row: nobody has died, but a customer cannot pay, and the order stays half done",
        unpaid[CALLS][0] is Ending.INCONSISTENT,
        fact=unpaid[CALLS][1],
    )
    run.about(SAGA.name, topics=[EVENTUAL]).claim(
        "when a customer cannot pay, two-phase commit leaves nothing of the order, and a saga undoes it",
        (unpaid[TWO_PHASE], unpaid[SAGA]) == ((None, ""), (Ending.COMPENSATED, "")),
        fact=f"two-phase commit: {unpaid[TWO_PHASE][0]}, a saga: {unpaid[SAGA][0]}",
    )


def look(run: Run) -> None:
    """Orders under the seeded failures, looked at from outside all the time; the process is killed in the middle."""
    saga, seen = run.about(SAGA.name, topics=[EVENTUAL]), stage.look(run, SAGA, run.pick(smoke=40, demo=200, full=600))
    looks, standing = seen.looks, seen.standing
    saga.figure("an order is half done for", seen.spans, "ms")
    saga.figure("looks that see an order half done", 100 * sum(looks) / len(looks), "%")
    saga.claim(
        "orders can be seen half done while their sagas run, one as long as its process is dead, and none at the end",
        any(looks) and seen.dead == 1 and not standing.violations and seen.unfinished == 0,
        fact=f"{sum(looks)} of {len(looks)} looks saw one; {len(standing.complete)} complete,"
        f" {len(standing.compensated)} compensated, {len(standing.violations)} violations",
    )


if __name__ == "__main__":
    experiment.main()
