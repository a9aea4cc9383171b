"""Several services write at once, at the same orders. A reader remembers how far it is: what does it see, and when?

Five readers follow the same live outbox: `position > last` as tutorials have it, the same behind the oldest open
transaction, the pair (xid, position), snapshot windows, and Postgres' log. Positions and transaction ids are drawn
early, rows appear at commit. At the end a transaction that has nothing to do with it stays open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from outbox.relay import wal
from outbox.stage.by_hand import Held, overtake, turns, write_steadily
from outbox.stage.contended import Counter, Shape, open_orders
from outbox.stage.following import Way, follow, windows
from outbox.stage.processes import Shop, relay
from outbox.table import create
from outbox.wrong.positions import BehindOpen, ByPair, ByPosition

from shared import postgres
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom, reordered
from shared.experiment import Experiment, Run
from shared.history import History, now
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="Sequence gaps: the event that a reader passes over",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/polling-publisher/poll-outbox-table",
        "I.5/change-data-capture/database-log-monitoring",
        "I.5/ordering-considerations/sequence-numbers",
    ),
)
TUTORIAL, HALF = "position > last", "position > last, behind open transactions"
PAIR, WINDOWS, LOG = "(xid, position) > last", "snapshot windows", "the log (WAL relay)"
READERS: dict[str, Way] = {TUTORIAL: ByPosition, HALF: BehindOpen, PAIR: ByPair, WINDOWS: windows}
SLUGS = {TUTORIAL: "tutorial", HALF: "half-fix", PAIR: "pair", WINDOWS: "windows", LOG: "log"}
WRONG = TUTORIAL, HALF, PAIR
SHAPES = {Shape.UPDATE_FIRST: "update-first", Shape.AUDIT_FIRST: "audit-first"}
SERVICES, ORDERS = 8, 3
PAUSE = 0.004  # seconds of work at most, before the order's lock and again behind it: the transaction is open meanwhile
POLL, SEQUENCE = "I.5/polling-publisher/poll-outbox-table", "I.5/ordering-considerations/sequence-numbers"


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=160, demo=2_000, full=12_000)
    run.parameters.update({"services": SERVICES, "orders": ORDERS, "events of each shape": count})
    run.parameters["work in a transaction up to (s)"] = 2 * PAUSE
    counter = open_counter(run, count)
    with following(run, counter):
        with run.step(f"{SERVICES} services write at {ORDERS} orders, five readers follow"):
            overtake(counter, lambda event: until("it to be read", lambda: all(has(run, way, event) for way in WRONG)))
            for shape, slug in SHAPES.items():
                run.worker("services", turns, replace(counter, history=run.history_file(slug)), shape).wait(240)
        with run.step("a transaction that has nothing to do with it stays open"):
            held = beside_a_long_transaction(run, counter, run.pick(smoke=1.0, demo=5.0, full=10.0))
    histories = {way: judge(run, counter, way) for way in SLUGS}
    claim_lost(run, histories)
    claim_reordered(run, histories[PAIR])
    claim_gaps(run, counter, histories[WINDOWS])
    claim_right(run, histories)
    claim_waiting(run, held)


def open_counter(run: Run, count: int) -> Counter:
    """Tables, orders, the index that the tutorial's reader wants, and a slot for the log's reader."""
    conninfo, topic = run.schema(), run.topic("orders")
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute("create index on outbox (position)")
    wal.set_up(conninfo, run.name, run.name)
    if not run.keep:
        run.cleanup(lambda: wal.tear_down(conninfo, run.name))
    counter = Counter(conninfo, topic, run.history_file("writes"), run.seed, count, ORDERS, SERVICES, PAUSE)
    open_orders(counter)
    return counter


@contextmanager
def following(run: Run, counter: Counter) -> Iterator[None]:
    """Every reader at work, in a process and with a history of its own; at the end it has read all that there is."""
    ready = {way: run.folder / f"{SLUGS[way]}.ready" for way in READERS}
    readers = [
        run.worker(SLUGS[way], follow, counter.conninfo, own_file(run, way), reader, SLUGS[way], ready[way])
        for way, reader in READERS.items()
    ]
    shop = Shop(counter.conninfo, run.endpoints["kafka"], counter.topic, own_file(run, LOG), run.seed, 0, slot=run.name)
    with Tap("consumer", shop.broker, [shop.topic], run.recorder(SLUGS[LOG], "experiment")) as tap:
        log = run.worker("log", relay, shop, "log", 500, 0.05)
        until("the readers to read", lambda: all(path.exists() for path in ready.values()))
        yield
        for reader in readers:
            reader.stop()
        tap.wait_for(len(writes(run, counter).committed))
        log.stop()
        tap.catch_up()


def own_file(run: Run, way: str) -> Path:
    return run.history_file(SLUGS[way])


def writes(run: Run, counter: Counter) -> History:
    return History.read(counter.history, *map(run.history_file, SHAPES.values()))


def has(run: Run, way: str, event: str) -> bool:
    """Whether the reader has had the event: those that are wrong by positions have passed over others then."""
    return event in {op.value for op in History.read(own_file(run, way)).delivered}


def beside_a_long_transaction(run: Run, counter: Counter, seconds: float) -> Held:
    """It has written something, somewhere. A service writes meanwhile, and for a while after it."""
    with postgres.connect(counter.conninfo) as unrelated, unrelated.transaction():
        unrelated.execute("select pg_current_xact_id()")
        began = now()
        committed = write_steadily(counter, seconds)
        until("it to be read by windows", lambda: committed.keys() <= delivered(run, WINDOWS).keys())
        read = {way: len(committed.keys() & delivered(run, way).keys()) for way in READERS}
    return Held(began, seconds, committed, write_steadily(counter, seconds / 4), read)


def delivered(run: Run, way: str) -> dict[str, int]:
    """What the reader has had by now: event id -> ns."""
    return {op.value: op.at for op in History.read(own_file(run, way)).delivered}


def judge(run: Run, counter: Counter, way: str) -> History:
    """The reader's history, with the writes that all of them share."""
    with own_file(run, way).open("ab") as file:
        for path in (counter.history, *map(run.history_file, SHAPES.values())):
            file.write(path.read_bytes())
    history = run.judge(SLUGS[way], variant=way, wrong_way=way in WRONG)
    for slug in SHAPES.values():
        of_shape = History.read(run.history_file(slug)).committed
        for name, found in (("events missed", lost(history)), ("events out of order", reordered(history))):
            value = sum(anomaly.value in of_shape for anomaly in found)
            run.figure(name, value, "events", variant=way, wrong_way=way in WRONG, x=slug, x_label="transaction")
    return history


def claim_lost(run: Run, histories: dict[str, History]) -> None:
    texts = {
        TUTORIAL: "position > last: it passes over events whose transactions commit late, for good and without an "
        "error",
        HALF: "waiting for older transactions, but reading by position: it still loses events, since xids and positions"
        " are not drawn in one order",
    }
    for way, text in texts.items():
        holds = len(lost(histories[way])) > 0
        run.claim(text, holds, topics=[POLL, SEQUENCE], fact=seen(histories[way]), variant=way, wrong_way=True)


def claim_reordered(run: Run, history: History) -> None:
    """Overtaken by hand in the one shape; in the other one, services write until it has happened."""
    texts = {
        Shape.AUDIT_FIRST: "(xid, position) > last, behind the oldest open transaction: it loses nothing, but reads an "
        "order's later event first where a transaction had its id, for an audit row, before the order's lock",
        Shape.UPDATE_FIRST: "(xid, position) > last: no audit row is needed, an UPDATE has its transaction's id before "
        "it waits for the row",
    }
    for shape, text in texts.items():
        of_shape = History.read(run.history_file(SHAPES[shape])).committed
        wrong = sum(anomaly.value in of_shape for anomaly in reordered(history))
        run.claim(
            text,
            wrong > 0 and not lost(history) + duplicate_delivery(history),
            topics=[POLL, SEQUENCE],
            fact=f"{wrong:,} of {len(of_shape):,} events out of order, {len(lost(history))} missed",
            variant=PAIR,
            wrong_way=True,
        )


def claim_gaps(run: Run, counter: Counter, history: History) -> None:
    """Waiting for the missing number is no way out either."""
    with postgres.connect(counter.conninfo) as connection:
        drawn = "pg_sequence_last_value(pg_get_serial_sequence('outbox', 'position'))"
        rows, highest = connection.execute(f"select count(*), {drawn} from outbox").fetchone() or (0, 0)  # noqa: S608
    run.claim(
        "a gap in the positions says nothing: those of rolled back transactions never come, a reader must not wait",
        highest - rows == len(history.aborted) > 0 and not aborted_read(history),
        topics=[SEQUENCE],
        fact=f"{highest - rows:,} of {highest:,} positions have no row",
        variant=WINDOWS,
    )


def claim_right(run: Run, histories: dict[str, History]) -> None:
    texts = {
        WINDOWS: "snapshot windows: every event is read once, and every order's events in order",
        LOG: "the log has every event once and in order: what is in it is committed, and nothing appears before its end"
        " later",
    }
    topics = {WINDOWS: POLL, LOG: "I.5/change-data-capture/database-log-monitoring"}
    for way, text in texts.items():
        history = histories[way]
        wrong = lost(history) + duplicate_delivery(history) + phantom(history) + aborted_read(history)
        holds = not wrong + reordered(history) and len(history.committed) > 0
        run.claim(text, holds, topics=[topics[way]], fact=seen(history), variant=way)


def claim_waiting(run: Run, held: Held) -> None:
    """Counted at the moment of its end; the lag is a figure."""
    texts = {
        PAIR: "(xid, position) > last: while any transaction is open, nothing that was written since is read",
        WINDOWS: "snapshot windows: an open transaction holds nobody back, and all that is written meanwhile is read",
    }
    for way, text in texts.items():
        due = len(held.committed) if way == WINDOWS else 0
        fact = f"{held.read[way]} of {len(held.committed)} events read before its end, open for {held.seconds:g} s"
        run.claim(text, held.read[way] == due, topics=[POLL], fact=fact, variant=way, wrong_way=way in WRONG)
        label = "seconds since the transaction began"
        for since, lag in held.lags(delivered(run, way)).items():
            run.figure("commit to read", lag, "ms", variant=way, wrong_way=way in WRONG, x=since, x_label=label)


def seen(history: History) -> str:
    return f"{len(lost(history)):,} missed and {len(reordered(history)):,} out of order, of {len(history.committed):,}"


if __name__ == "__main__":
    experiment.main()
