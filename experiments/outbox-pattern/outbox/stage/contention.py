"""The relays of the ladder at orders that several services change. Each relay has a topic of its own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from msgspec import structs

from outbox.relay import Relay, wal
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.stage.by_hand import insert_first, overtake, turns
from outbox.stage.contended import Counter, Shape, open_orders, take_turns
from outbox.stage.processes import at_work
from outbox.table import create
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay
from outbox.wrong.positions import PairRelay
from shared.checkers import duplicate_delivery, lost, reordered
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.run import Run
from shared.tap import Tap

MARKING, CURSOR, LOG, PAIR = "publish, then mark", "cursor, snapshot windows", "log relay", "cursor, (xid, position)"
ROWS, BATCHES, DEBEZIUM = "row by row, one relay", "batch delete, one relay", "Debezium"
RIGHT = ROWS, BATCHES, MARKING, CURSOR, LOG, DEBEZIUM
BEFORE_LOCK = "event before the lock"
SLUGS = {
    **{ROWS: "rows", BATCHES: "batches", MARKING: "marking", CURSOR: "windows"},
    **{LOG: "log", DEBEZIUM: "debezium", PAIR: "pair"},
}
SHAPES = {Shape.UPDATE_FIRST: "update-first", Shape.AUDIT_FIRST: "audit-first"}
SERVICES, ORDERS, PAUSE = 8, 3, 0.002  # see Counter
TOPICS = ["I.5/ordering-considerations/per-aggregate-ordering"]
TYPE = "orders"  # the aggregate type: a relay's topic is this behind its prefix


@dataclass(frozen=True)
class Outbox(Counter):
    """The counter's outbox, with the slot of the log relay."""

    slot: str = ""


@dataclass(frozen=True)
class Judged:
    """What came out of a relay's topic, with the writes."""

    history: History
    wrong: dict[Shape, int]  # events of transactions of that shape that came out of order
    committed: dict[Shape, int]

    @property
    def whole(self) -> bool:
        """Whether every event came once."""
        enough = min(self.committed.values()) > max(self.committed.values()) / 2  # services wrote in either shape
        return enough and not lost(self.history) + duplicate_delivery(self.history)

    def __str__(self) -> str:
        counts = (f"{self.wrong[shape]:,} of {self.committed[shape]:,} ({name})" for shape, name in SHAPES.items())
        return f"out of order: {', '.join(counts)}"


def relayed(run: Run, count: int) -> dict[str, Judged]:
    """Every relay, at work while services write `count` events of each shape.

    Who marks or deletes what is published hides it from the others: it has an outbox for itself.
    """
    found: dict[str, Judged] = {}
    for ways in ((CURSOR, LOG, DEBEZIUM, PAIR), (MARKING,), (BATCHES,), (ROWS,)):
        outbox = open_outbox(run, f"outbox-{SLUGS[ways[0]]}", count)
        with ExitStack() as stack:
            taps = [stack.enter_context(relaying(run, outbox, way, SLUGS[way])) for way in ways]
            # Only the pair needs one to be overtaken; and where rows are deleted, nobody can tell.
            work = turns if PAIR in ways else take_turns
            written = {shape: write(run, outbox, shape, work) for shape in SHAPES}
            for tap in taps:
                tap.wait_for(sum(len(history.committed) for history in written.values()), 240)
                tap.catch_up()
        found |= {way: judged(run, way, written) for way in ways}
    return found


def write(run: Run, outbox: Outbox, shape: Shape, work: Callable[[Counter, Shape], None]) -> History:
    """The services' transactions of this shape, which have a history of their own."""
    own = replace(outbox, history=outbox.history.with_stem(f"{outbox.history.stem}-{SHAPES[shape]}"))
    if shape is Shape.AUDIT_FIRST:
        overtake(own, lambda _: None)
    run.worker("services", work, own, shape).wait(240)
    return History.read(own.history)


def judged(run: Run, way: str, written: dict[Shape, History]) -> Judged:
    with Recorder(run.history_file(SLUGS[way]), "experiment") as recorder:
        recorder.add(*(op for history in written.values() for op in history.ops))
    history = run.judge(SLUGS[way], variant=way, wrong_way=way == PAIR)
    found = reordered(history)
    wrong = {shape: sum(one.value in of.committed for one in found) for shape, of in written.items()}
    for shape, count in wrong.items():
        name = "out of order, several services at an order"
        run.figure(name, count, "events", variant=way, wrong_way=way == PAIR, x=SHAPES[shape], x_label="transaction")
    return Judged(history, wrong, {shape: len(of.committed) for shape, of in written.items()})


def event_before_lock(run: Run) -> dict[str, tuple[History, list[int]]]:
    """Relay -> what came, in the numbers that the orders' locks gave, and the numbers that were in the messages.

    The relay that marks comes last, see `relayed`.
    """
    outbox = open_outbox(run, "event-first", 0)
    insert_first(outbox)
    found = {}
    for way in (CURSOR, LOG, PAIR, MARKING):
        name = f"event-first-{SLUGS[way]}"
        with relaying(run, outbox, way, f"{name}-as-sent") as tap:
            tap.wait_for(2)
            tap.catch_up()
        sent, written = History.read(run.history_file(f"{name}-as-sent")).delivered, History.read(outbox.history)
        with Recorder(run.history_file(name), "experiment") as recorder:
            recorder.add(*written.ops, *(structs.replace(op, seq=written.written[op.value].seq) for op in sent))
        history = run.judge(name, variant=f"{BEFORE_LOCK}, {way}", wrong_way=True)
        found[way] = history, [op.seq for op in sent]
    return found


def claim(run: Run, found: dict[str, Judged]) -> None:
    """Which relays hold the order of orders that several services change."""
    lead = "several services change the same orders, with and without a write before the order's lock"
    for way in RIGHT:
        judged = found[way]
        holds = judged.whole and not reordered(judged.history)
        text = f"{way}: {lead}, and every order's events come in order"
        run.claim(text, holds, topics=TOPICS, fact=str(judged), variant=way)
    run.claim(
        f"{PAIR}: {lead}, and an order's later event is published first, by one relay, with a key and no kill",
        found[PAIR].whole and min(found[PAIR].wrong.values()) > 0,
        topics=TOPICS,
        fact=str(found[PAIR]),
        variant=PAIR,
        wrong_way=True,
    )


def claim_before_lock(run: Run, found: dict[str, tuple[History, list[int]]]) -> None:
    """What no relay can put right."""
    came = {way: [op.seq for op in history.delivered] for way, (history, _) in found.items()}
    run.claim(
        "a service that inserts its event before it has the order's lock: every relay that reads the table publishes "
        "the order's second event first",
        all(came[way] == [2, 1] for way in (MARKING, CURSOR, PAIR)),
        topics=TOPICS,
        fact="; ".join(f"{way}: {came[way]}" for way in (MARKING, CURSOR, PAIR)),
        variant=BEFORE_LOCK,
        wrong_way=True,
    )
    run.claim(
        "the same by the log relay: it has the order of commits, but each event as it was inserted, without the number "
        "that its order's lock gave to it",
        came[LOG] == [1, 2] and found[LOG][1] == [0, 0],
        topics=[*TOPICS, "I.5/ordering-considerations/sequence-numbers"],
        fact=f"events {came[LOG]} were sent with the numbers {found[LOG][1]}",
        variant=BEFORE_LOCK,
        wrong_way=True,
    )


def open_outbox(run: Run, name: str, count: int) -> Outbox:
    """Tables, orders and a slot."""
    slot = f"{run.name}_{name.replace('-', '_')}"
    conninfo = run.schema(slot.removeprefix(run.name))
    create(conninfo)
    wal.set_up(conninfo, slot, slot)
    if not run.keep:
        run.cleanup(lambda: wal.tear_down(conninfo, slot))
    history = run.history_file(f"{name}-writes")
    outbox = Outbox(conninfo, TYPE, history, run.seed, count, ORDERS, SERVICES, PAUSE, slot)
    open_orders(outbox)
    return outbox


@contextmanager
def relaying(run: Run, outbox: Outbox, way: str, name: str) -> Iterator[Tap]:
    """The relay at work in a thread, and the consumer of its topic, whose history has that name."""
    topic = run.topic(f"{name}.{TYPE}")
    publisher = Publisher(run.endpoints["kafka"], topic.removesuffix(TYPE))
    with (
        connect(outbox.conninfo) as connection,
        Tap("consumer", run.endpoints["kafka"], [topic], run.recorder(name, "experiment")) as tap,
        debezium(run, outbox, publisher) if way == DEBEZIUM else at_work(make(way, outbox, connection, publisher)),
    ):
        yield tap


def debezium(run: Run, outbox: Outbox, publisher: Publisher) -> AbstractContextManager[object]:
    """The connector at work, on the topics that a publisher with this prefix would send to."""
    route = {"transforms.outbox.route.topic.replacement": f"{publisher.prefix}${{routedByValue}}"}
    endpoints, name = run.endpoints, f"{outbox.slot}_debezium"
    return Connector(endpoints["connect"], endpoints["postgres"], name, outbox.slot, settings=route).running()


def make(way: str, outbox: Outbox, connection: Connection, publisher: Publisher) -> Relay:
    if way == LOG:
        return WalRelay(outbox.conninfo, connection, publisher, outbox.slot)
    ladder: dict[str, type[PollingPublisher] | type[CursorRelay]] = {
        ROWS: SkipLockedRelay,
        BATCHES: BatchDeleteRelay,
        MARKING: PollingPublisher,
        CURSOR: CursorRelay,
        PAIR: PairRelay,
    }
    return ladder[way](connection, publisher)
