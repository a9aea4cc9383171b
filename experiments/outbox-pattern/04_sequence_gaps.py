"""Several services write events of the same orders at once. A reader keeps a checkpoint: what does it see, and when?

Five readers follow the same live outbox: `position > last` as tutorials have it, the same behind the oldest open
transaction, the pair (xid, position), snapshot windows, and Postgres' log. Positions and transaction ids are assigned
early, rows appear at commit. At the end an unrelated transaction stays open.

They differ in what they remember: `after` and `order` of ByPosition, BehindOpen and ByPair (wrong/positions.py) compare
with the last row; WINDOW of Reader (relay/reading.py) compares two snapshots; WalRelay's slot is a place in the log.
"""

from outbox.relay.reading import Reader
from outbox.relay.wal import WalRelay
from outbox.stage import readers
from outbox.stage.counter import SHAPES, Counter, Shape, overtake, turns, write_steadily
from outbox.stage.readers import Follower
from outbox.wrong.positions import BehindOpen, ByPair, ByPosition

from shared import checkers, postgres
from shared.experiment import Experiment, Run
from shared.history import History, now
from shared.wait import until

POLL, SEQUENCE = "I.5/polling-publisher/poll-outbox-table", "I.5/ordering-considerations/sequence-numbers"
MONITORING = "I.5/change-data-capture/database-log-monitoring"
experiment = Experiment(
    title="Sequence gaps: the event that a reader passes over",
    servers=("postgres", "kafka"),
    topics=(POLL, MONITORING, SEQUENCE),
)
SERVICES, ORDERS = 8, 3
PAUSE = 0.004  # seconds of work at most, before the order's lock and again behind it: the transaction is open meanwhile


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=160, demo=2_000, full=12_000)
    run.parameters.update({"services": SERVICES, "orders": ORDERS, "events of each shape": count})
    run.parameters["work in a transaction up to (s)"] = 2 * PAUSE
    wrong = tutorial, half, pair = (
        Follower("tutorial", ByPosition, run.about("position > last", wrong_way=True)),
        Follower("half-fix", BehindOpen, run.about("position > last, behind open transactions", wrong_way=True)),
        Follower("pair", ByPair, run.about("(xid, position) > last", wrong_way=True)),
    )
    windows = Follower("windows", Reader, run.about("snapshot windows"))
    log = Follower("log", WalRelay, run.about("the log (WAL relay)"))
    counter = readers.open_counter(run, count, ORDERS, SERVICES, PAUSE)
    with readers.following(run, counter, [*wrong, windows, log]):
        with run.step(f"{SERVICES} services write at {ORDERS} orders, five readers follow"):
            overtake(counter, lambda event: until("it to be read", lambda: all(event in one.had() for one in wrong)))
            for shape in SHAPES:
                run.worker("services", turns, counter.of(shape), shape).wait(240)
        with run.step("a transaction that has nothing to do with it stays open"):
            seconds = run.pick(smoke=1.0, demo=5.0, full=10.0)
            held = beside_a_long_transaction(counter, seconds, windows, [*wrong, windows])
    claim_lost(tutorial, half, counter)
    claim_reordered(pair, counter)
    by_windows, by_log = windows.judge(counter), log.judge(counter)
    claim_gaps(windows, by_windows, counter)
    claim_right(windows, by_windows, log, by_log)
    claim_waiting(pair, windows, held)


def beside_a_long_transaction(
    counter: Counter, seconds: float, windows: Follower, followers: list[Follower]
) -> readers.Held:
    """It has written something, somewhere. A service writes meanwhile, and for a while after it."""
    with postgres.connect(counter.conninfo) as unrelated, unrelated.transaction():
        unrelated.execute("select pg_current_xact_id()")
        began = now()
        committed = write_steadily(counter, seconds)
        until("it to be read by windows", lambda: committed.keys() <= windows.had().keys())
        read = {one.name: len(committed.keys() & one.had().keys()) for one in followers}
    return readers.Held(began, seconds, committed, write_steadily(counter, seconds / 4), read)


def claim_lost(tutorial: Follower, half: Follower, counter: Counter) -> None:
    by_tutorial, by_half = tutorial.judge(counter), half.judge(counter)
    tutorial.about.claim(
        "position > last: it passes over events whose transactions commit late, for good and without an error",
        len(checkers.lost(by_tutorial)) > 0,
        topics=[POLL, SEQUENCE],
        fact=seen(by_tutorial),
    )
    half.about.claim(
        "waiting for older transactions, but reading by position: it still loses events, since xids and positions are "
        "not drawn in one order",
        len(checkers.lost(by_half)) > 0,
        topics=[POLL, SEQUENCE],
        fact=seen(by_half),
    )


def claim_reordered(pair: Follower, counter: Counter) -> None:
    """Overtaken by hand in the one shape; in the other one, services write until it has happened."""
    history = pair.judge(counter)
    texts = {
        Shape.AUDIT_FIRST: "(xid, position) > last, behind the oldest open transaction: it loses nothing, but reads an "
        "order's later event first where a transaction had its id, for an audit row, before the order's lock",
        Shape.UPDATE_FIRST: "(xid, position) > last: the same without an audit row, as an UPDATE gets its xid before "
        "it waits for the row lock",
    }
    for shape, text in texts.items():
        of_shape = History.read(counter.of(shape).history).committed
        wrong = sum(anomaly.value in of_shape for anomaly in checkers.reordered(history))
        pair.about.claim(
            text,
            wrong > 0 and not checkers.lost(history) + checkers.duplicate_delivery(history),
            topics=[POLL, SEQUENCE],
            fact=f"{wrong:,} of {len(of_shape):,} events out of order, {len(checkers.lost(history))} missed",
        )


def claim_gaps(windows: Follower, history: History, counter: Counter) -> None:
    """Waiting for the missing number is no way out either."""
    drawn = "select pg_sequence_last_value(pg_get_serial_sequence('outbox', 'position'))"
    with postgres.connect(counter.conninfo) as connection:
        highest = postgres.number(connection, drawn)
        gaps = highest - postgres.number(connection, "select count(*) from outbox")
    windows.about.claim(
        "a gap in the positions says nothing: those of rolled back transactions never come, a reader must not wait",
        gaps == len(history.aborted) > 0 and not checkers.aborted_read(history),
        topics=[SEQUENCE],
        fact=f"{gaps:,} of {highest:,} positions have no row",
    )


def claim_right(windows: Follower, by_windows: History, log: Follower, by_log: History) -> None:
    windows.about.claim(
        "snapshot windows: every event is read once, and every order's events in order",
        all_in_order(by_windows),
        topics=[POLL],
        fact=seen(by_windows),
    )
    log.about.claim(
        "the log has every event once and in order: it holds commits in order, and nothing is inserted into it later",
        all_in_order(by_log),
        topics=[MONITORING],
        fact=seen(by_log),
    )


def claim_waiting(pair: Follower, windows: Follower, held: readers.Held) -> None:
    """Counted at the moment of its end; the lag is a figure."""
    for reader, due, text in (
        (pair, 0, "(xid, position) > last: while any transaction is open, nothing that was written since is read"),
        (
            windows,
            len(held.committed),
            "snapshot windows: an open transaction holds nobody back, and all that is written meanwhile is read",
        ),
    ):
        read = held.read[reader.name]
        fact = f"{read} of {len(held.committed)} events read before its end, open for {held.seconds:g} s"
        reader.about.claim(text, read == due, topics=[POLL], fact=fact)
        for since, lag in held.lags(reader.had()).items():
            reader.about.figure("commit to read", lag, "ms", x=since, x_label="seconds since the transaction began")


def all_in_order(history: History) -> bool:
    return not any(checkers.check(history).values()) and len(history.committed) > 0


def seen(history: History) -> str:
    missed, wrong = len(checkers.lost(history)), len(checkers.reordered(history))
    return f"{missed:,} missed and {wrong:,} out of order, of {len(history.committed):,}"


if __name__ == "__main__":
    experiment.main()
