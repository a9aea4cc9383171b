"""A service writes a row and publishes an event. It dies before, between or after the two: what is left?

Three ways under the same workload, the same seed and the same kills: commit then publish, publish then commit, and the
outbox. Rows without events and events without rows are counted by comparing the database with the topic.

They differ in what stands inside `with connection.transaction()`: in `commit_then_publish` and `publish_then_commit`
(wrong/dual_write.py) the row alone, in `write_with_outbox` (service.py) the row and its event.
"""

from outbox.service import Write, write_with_outbox
from outbox.stage.shop import Shop, publish_all, serve, serve_in_session, watched
from outbox.windows import WriteWindow
from outbox.wrong.dual_write import commit_then_publish, publish_then_commit

from shared import checkers, postgres
from shared.about import About
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import History
from shared.run import slug

TWO_WRITES, PROBLEM = "I.5/the-problem/database-write-message-publish", "I.5/the-problem/dual-write-problem"
PARTIAL, INCONSISTENT = "I.5/the-problem/partial-failures", "I.5/the-problem/inconsistency-risk"
TABLE, SCOPE = "I.5/outbox-pattern/write-event-to-outbox-table", "I.5/outbox-implementation/transaction-scope"
TOGETHER = "I.5/outbox-pattern/same-transaction-as-business-data"
experiment = Experiment(
    title="Dual write: the row and the event",
    servers=("postgres", "kafka"),
    topics=(TWO_WRITES, PROBLEM, PARTIAL, INCONSISTENT, TABLE, TOGETHER, SCOPE),
)
REFUSED = "no kill, refused rows"
# Rows of either table without a partner count, too.
BY_TRANSACTION = """
select count(*) filter (where order_steps.xmin = outbox.xid::xid), count(*)
from order_steps full join outbox on order_id = aggregate_id and number = sequence
"""
Cases = dict[str, tuple[Shop, History]]  # what was killed


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=40, demo=200, full=2_000)
    run.parameters["events per case"] = count
    losing = run.about("commit, then publish", wrong_way=True)
    inventing = run.about("publish, then commit", wrong_way=True)
    outbox, session = run.about("outbox"), run.about("outbox, by SQLAlchemy")
    lossy = take_orders(losing, commit_then_publish, count)
    phantoms = take_orders(inventing, publish_then_commit, count)
    whole = take_orders(outbox, write_with_outbox, count)
    with run.step(f"{session.variant}: kill -9 {WriteWindow.BETWEEN}, and some orders refused"):
        by_session = in_session(session, count)
    claim_wrong_ways(losing, lossy, inventing, phantoms)
    claim_outbox(outbox, whole)
    claim_one_transaction(outbox, whole)
    claim_session(session, by_session, count)


def take_orders(about: About, write: Write, count: int) -> Cases:
    """One way: killed in every window; and without a kill, where the database refuses some orders."""
    found: Cases = {}
    for window in WriteWindow:
        with about.run.step(f"{about.variant}: kill -9 {window}"):
            shop = Shop.open(about.run, slug(f"{about.variant} {window}"), count)
            found[window] = shop, serve_all(about, write, shop, Kill(window, shop.a_step()))
    with about.run.step(f"{about.variant}: the database refuses some orders"):
        shop = Shop.open(about.run, slug(f"{about.variant} refused"), count, refused_every=10)
        found[REFUSED] = shop, serve_all(about, write, shop)
    for case, (_, history) in found.items():
        without_event, without_row = checkers.lost(history), checkers.phantom(history) + checkers.aborted_read(history)
        for name, which in (("rows without an event", without_event), ("events without a row", without_row)):
            about.figure(name, len(which), "events", x=case, x_label="killed")
    return found


def serve_all(about: About, write: Write, shop: Shop, kill: Kill | None = None) -> History:
    """The service, killed if it is to be, and started again with the next step. Only the outbox has a relay to do."""
    with watched(about.run, shop) as tap:
        if kill:
            about.run.worker("service", serve, shop, write, kill=kill).wait()
        about.run.worker("service", serve, shop, write, first=kill.nth if kill else 0).wait()
        publish_all(shop)
    shop.settle(tap.recorder)
    return about.judge(shop.history.stem, f"SIGKILL {kill.window}" if kill else None)


def in_session(about: About, count: int) -> History:
    """The outbox in a SQLAlchemy session's transactions: killed between the two inserts, and some refused."""
    shop = Shop.open(about.run, "outbox-session", count, refused_every=10)
    with watched(about.run, shop) as tap:
        # A refused order does not come as far as the window.
        kill = Kill(WriteWindow.BETWEEN, shop.a_step())
        about.run.worker("service", serve_in_session, shop, kill=kill).wait()
        about.run.worker("service", serve_in_session, shop, first=shop.attempted()).wait()
        publish_all(shop)
    shop.settle(tap.recorder)
    return about.judge(shop.history.stem, f"SIGKILL {kill.window}")


def claim_wrong_ways(losing: About, lossy: Cases, inventing: About, phantoms: Cases) -> None:
    _, history = lossy[WriteWindow.BETWEEN]
    losing.claim(
        "commit, then publish: killed between the two, it leaves a row whose event never comes",
        len(checkers.lost(history)) == 1 and not checkers.phantom(history),
        topics=[TWO_WRITES, PROBLEM],
        fact=f"{len(checkers.lost(history))} of {len(history.committed)} events lost",
    )
    _, history = phantoms[WriteWindow.BETWEEN]
    inventing.claim(
        "publish, then commit: killed between the two, it has told the world of a row that does not exist",
        len(checkers.phantom(history)) == 1 and not checkers.lost(history),
        topics=[INCONSISTENT, PROBLEM],
        fact=f"{len(checkers.phantom(history))} phantom event",
    )
    _, history = phantoms[REFUSED]
    inventing.claim(
        "publish, then commit: it needs no crash, a row that the database refuses is enough",
        len(history.aborted) > 0 and len(checkers.aborted_read(history)) == len(history.aborted),
        topics=[PARTIAL],
        fact=f"{len(checkers.aborted_read(history))} of {len(history.aborted)} refused orders were published",
    )


def claim_outbox(about: About, whole: Cases) -> None:
    broken = [anomaly for _, history in whole.values() for anomaly in broken_in(history)]
    about.claim(
        "outbox: killed in any window, every row has its event and every event its row",
        not broken and len(whole) == len(WriteWindow) + 1,
        topics=[TABLE, TOGETHER],
        fact=f"0 lost, 0 phantom in {len(whole)} cases",
    )
    _, between = whole[WriteWindow.BETWEEN]
    undone = set(between.written) - between.committed
    about.claim(
        "outbox: killed between the two inserts, neither is there",
        len(undone) == 1 and not undone & {op.value for op in between.delivered},
        topics=[SCOPE],
        fact=f"{len(undone)} step undone, with its event",
    )
    _, history = whole[REFUSED]
    about.claim(
        "outbox: an order that the database refuses is not published",
        len(history.aborted) > 0 and not checkers.aborted_read(history) + checkers.duplicate_delivery(history),
        topics=[PARTIAL],
        fact=f"0 of {len(history.aborted)} refused orders published",
    )


def claim_one_transaction(about: About, whole: Cases) -> None:
    """No kill hits the moment after a commit for certain: the transaction ids tell an event inserted a moment later."""
    together = total = 0
    for shop, _ in whole.values():
        with postgres.connect(shop.conninfo) as connection:
            [(same, rows)] = connection.execute(BY_TRANSACTION).fetchall()
        together, total = together + same, total + rows
    about.claim(
        "outbox: every event was written by the very transaction of its row, as their transaction ids say",
        together == total > 0 and len(whole) == len(WriteWindow) + 1,
        topics=[SCOPE, TOGETHER],
        fact=f"{together:,} of {total:,} rows and events share their xid",
    )


def claim_session(about: About, history: History, count: int) -> None:
    undone = len(history.written) - len(history.committed) - len(history.aborted)
    about.claim(
        "outbox, by SQLAlchemy: what the session commits has row and event, what is killed or refused has neither",
        not broken_in(history) and undone == 1 and len(history.aborted) == count // 10,
        topics=[SCOPE, TOGETHER],
        fact=f"{len(history.committed):,} with both, 1 killed and {len(history.aborted)} refused with neither",
    )


def broken_in(history: History) -> list[checkers.Anomaly]:
    return checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history)


if __name__ == "__main__":
    experiment.main()
