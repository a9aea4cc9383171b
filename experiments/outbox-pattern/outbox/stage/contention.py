"""Relays that compete, keys that differ, services that change the same orders (08): what consumers see of the order."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Message, Producer
from msgspec import structs

from outbox.ordering import InOrder, java_partition
from outbox.relay import Relay, wal
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.stage.counter import SHAPES, Counter, Shape, insert_first, overtake, take_turns, turns
from outbox.stage.shop import RelayClass, Shop, at_work, relay, watched
from outbox.table import create, insert_event
from outbox.windows import RelayWindow
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay
from outbox.wrong.placing import Placing
from outbox.wrong.positions import PairRelay
from shared import kafka, workload
from shared.about import About
from shared.checkers import duplicate_delivery, lost, reordered
from shared.event import Event
from shared.history import Action, History, Op, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.run import Run, slug
from shared.tap import Tap

ORDERS = 4  # few, so that the events of one order come close together
PARTITIONS = 3


@dataclass(frozen=True)
class BusyOrders(Shop):
    """A shop in which few orders have all the events, so that those of one order come close together."""

    orders: int = ORDERS

    def events(self, first: int = 0) -> Iterator[Event]:
        for number, event in enumerate(workload.events(self.seed, self.count, self.orders, self.prefix)):
            if number >= first:
                yield event


def judge(about: About, name: str) -> History:
    """What the checkers find; how much is out of order is a figure."""
    history = about.judge(name)
    about.figure("events consumed out of order", len(reordered(history)), "events")
    return history


def step_by_step(about: About, way: type[PollingPublisher]) -> History:
    """Two events of one order, two relays. The hook of the first relay lets the second one go ahead."""
    shop = BusyOrders.open(about.run, "step-by-step", 2, orders=1)
    with (
        watched(about.run, shop) as tap,
        connect(shop.conninfo) as mine,
        connect(shop.conninfo) as other,
    ):
        for event in shop.events():
            insert_event(mine, event, shop.topic)
            tap.recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)
        overtaking = way(other, Publisher(shop.broker))

        def overtake(window: str) -> None:
            if window == RelayWindow.AFTER_READ:
                overtaking.step()

        way(mine, Publisher(shop.broker), at=overtake).step()
    return about.judge("step-by-step")


def compete(about: About, way: RelayClass, relays: int, count: int) -> History:
    """So many relay processes, and a backlog for them when all of them look for one."""
    run, name = about.run, slug(about.variant)
    shop = BusyOrders.open(run, name, count, PARTITIONS)
    with watched(run, shop) as tap, ExitStack() as workers:
        names = [f"relay-{number}" for number in range(1, relays + 1)]
        started = [workers.enter_context(run.worker(one, relay, shop, way, process=one)) for one in names]
        for worker in started:
            worker.ready()
        shop.write_backlog()
        if way is SkipLockedRelay:  # it deletes what it has published
            shop.wait_until_published(120)
        tap.wait_for(count)
    return judge(about, name)


def publish(about: About, placing: Placing, count: int) -> History:
    """Published one by one, each acknowledged before the next. The consumer comes when all of them are there."""
    name = slug(about.variant)
    shop = BusyOrders.open(about.run, name, count, PARTITIONS)
    default, ours = Producer(kafka.config(shop.broker)), kafka.producer(shop.broker)
    recorder = about.run.recorder(name, "service")
    for event in shop.events():
        producer, key = placing(default, ours, event)
        message = event.to_kafka()
        producer.produce(shop.topic, message.value, key, headers=dict(message.headers))
        producer.flush()
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        tap.catch_up()
    return judge(about, name)


def not_as_java(run: Run, count: int) -> tuple[int, int, int]:
    """How many of the keys librdkafka's default (CRC32) and murmur2 put elsewhere than Java's formula; and all keys."""
    broker, topic = run.endpoints["kafka"], run.topic("keys", PARTITIONS)
    rng = random.Random(run.seed)
    keys = sorted({f"order-{rng.randrange(10**9):09d}".encode() for _ in range(count)})
    default = partitions(Producer(kafka.config(broker)), topic, keys)
    ours = partitions(kafka.producer(broker), topic, keys)
    java = {key: java_partition(key, PARTITIONS) for key in keys}
    apart, differ = (sum(found[key] != java[key] for key in keys) for found in (default, ours))
    return apart, differ, len(keys)


def partitions(producer: Producer, topic: str, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Where a producer puts each key, as the broker acknowledges it."""
    found: dict[bytes, int] = {}

    def delivered(error: object, message: Message) -> None:
        if error is None:
            found[kafka.key(message) or b""] = message.partition() or 0

    for key in keys:
        producer.produce(topic, b"{}", key, on_delivery=delivered)
    producer.flush()
    return found


def as_events(history: History) -> list[tuple[Op, Event]]:
    """The deliveries, as far as a buffer looks at them."""
    return [(op, Event("shop", "/shop", op.key, id=op.value, sequence=op.seq)) for op in history.delivered]


def with_a_gap(history: History) -> tuple[dict[str, int], dict[str, int]]:
    """The same deliveries without one: what was left out, and what the buffer says is missing."""
    events, buffer = as_events(history), InOrder(limit=len(history))
    key = history.delivered[0].key
    last = max(op.seq for op in history.delivered if op.key == key)
    for _, event in events:
        if (event.subject, event.sequence) != (key, last // 2):
            buffer.take(event)
    return {key: last // 2}, buffer.missing()


def in_order(history: History) -> bool:
    """Whether every event came, once and in order."""
    return len(history.committed) > 0 and not reordered(history) + lost(history) + duplicate_delivery(history)


def out_of_order(history: History) -> str:
    return f"{len(reordered(history)):,} of {len(history.committed):,} events out of order"


def spread(history: History) -> int:
    """How many orders have events in more than one partition."""
    places: dict[str, set[int]] = {}
    for op in history.delivered:
        places.setdefault(op.key, set()).add(op.partition)
    return sum(len(found) > 1 for found in places.values())


# Several services change the same orders, and the relays of the ladder publish, each to a topic of its own.

Contender = RelayClass | type[Connector]
LADDER: dict[Contender, str] = {  # the relays, and what is said of them
    SkipLockedRelay: "row by row, one relay",
    BatchDeleteRelay: "batch delete, one relay",
    PollingPublisher: "publish, then mark",
    CursorRelay: "cursor, snapshot windows",
    WalRelay: "log relay",
    Connector: "Debezium",
    PairRelay: "cursor, (xid, position)",
}
# Who marks or deletes what is published hides it from the others: it has an outbox for itself.
OUTBOXES: tuple[tuple[Contender, ...], ...] = (
    (CursorRelay, WalRelay, Connector, PairRelay),
    (PollingPublisher,),
    (BatchDeleteRelay,),
    (SkipLockedRelay,),
)
BEFORE_LOCK = "event before the lock"
TYPE = "orders"  # the aggregate type: a relay's topic is this behind its prefix
AT_COUNTER = 3, 8, 0.002  # orders, services and pause, see Counter


@dataclass(frozen=True)
class Judged:
    """What came out of a relay's topic, with the writes."""

    about: About
    history: History
    wrong: dict[Shape, int]  # events of transactions of that shape that came out of order
    committed: dict[Shape, int]

    @property
    def whole(self) -> bool:
        """Whether every event came once."""
        enough = min(self.committed.values()) > max(self.committed.values()) / 2  # services wrote in either shape
        return enough and not lost(self.history) + duplicate_delivery(self.history)

    def __str__(self) -> str:
        counts = (f"{self.wrong[shape]:,} of {self.committed[shape]:,} ({shape.label})" for shape in SHAPES)
        return f"out of order: {', '.join(counts)}"


def by_every_relay(run: Run, count: int) -> list[Judged]:
    """Every relay of the ladder, at work while services write `count` events of each shape."""
    found: dict[Contender, Judged] = {}
    for ways in OUTBOXES:
        counter = open_counter(run, slug(LADDER[ways[0]]), count)
        with ExitStack() as stack:
            taps = [stack.enter_context(relayed(run, counter, way, slug(LADDER[way]))) for way in ways]
            # Only the pair needs one to be overtaken; and where rows are deleted, nobody can tell.
            work = turns if PairRelay in ways else take_turns
            written = {shape: write(run, counter.of(shape), shape, work) for shape in SHAPES}
            for tap in taps:
                tap.wait_for(sum(len(history.committed) for history in written.values()), 240)
                tap.catch_up()
        for way in ways:
            found[way] = judged(run.about(LADDER[way], wrong_way=way is PairRelay), counter, written)
    return [found[way] for way in LADDER]


def write(run: Run, counter: Counter, shape: Shape, work: Callable[[Counter, Shape], None]) -> History:
    """The services' transactions of this shape."""
    if shape is Shape.AUDIT_FIRST:
        overtake(counter, lambda _: None)
    run.worker("services", work, counter, shape).wait(240)
    return History.read(counter.history)


def judged(about: About, counter: Counter, written: dict[Shape, History]) -> Judged:
    history = about.judge(slug(about.variant), also=[counter.of(shape).history for shape in SHAPES])
    found = reordered(history)
    wrong = {shape: sum(one.value in of.committed for one in found) for shape, of in written.items()}
    for shape, count in wrong.items():
        name = "out of order, several services at an order"
        about.figure(name, count, "events", x=shape.label, x_label="transaction")
    return Judged(about, history, wrong, {shape: len(of.committed) for shape, of in written.items()})


@dataclass(frozen=True)
class Sent:
    """Two events of one order: in which order they came, and the numbers that were in their messages."""

    came: list[int]  # by the numbers that the order's lock has given to them
    numbers: list[int]


def event_before_lock(run: Run) -> tuple[dict[str, Sent], Sent]:
    """By the relays that read the table, and by the log's. The one that marks comes last: it hides what it has sent."""
    counter = open_counter(run, "event_first", 0)
    insert_first(counter)
    log = _sent(run, counter, WalRelay)
    return {LADDER[way]: _sent(run, counter, way) for way in (CursorRelay, PairRelay, PollingPublisher)}, log


def _sent(run: Run, counter: Counter, way: Contender) -> Sent:
    name = f"event_first_{slug(LADDER[way])}"
    with relayed(run, counter, way, f"{name}_as_sent") as tap:
        tap.wait_for(2)
        tap.catch_up()
    sent, written = History.read(tap.recorder.path).delivered, History.read(counter.history)
    with Recorder(run.history_file(name), "experiment") as recorder:
        recorder.add(*written.ops, *(structs.replace(op, seq=written.written[op.value].seq) for op in sent))
    history = run.judge(name, variant=f"{BEFORE_LOCK}, {LADDER[way]}", wrong_way=True)
    return Sent([op.seq for op in history.delivered], [op.seq for op in sent])


def open_counter(run: Run, name: str, count: int) -> Counter:
    """Tables, orders and a slot."""
    conninfo, slot = run.schema(f"_{name}"), f"{run.name}_{name}"
    create(conninfo)
    wal.set_up(conninfo, slot, slot)
    if not run.keep:
        run.cleanup(lambda: wal.tear_down(conninfo, slot))
    counter = Counter(conninfo, TYPE, run.history_file(f"{name}-writes"), run.seed, count, *AT_COUNTER, slot=slot)
    counter.open()
    return counter


@contextmanager
def relayed(run: Run, counter: Counter, way: Contender, name: str) -> Iterator[Tap]:
    """The relay at work in a thread, and the consumer of its topic, whose history has that name."""
    topic = run.topic(f"{name}.{TYPE}")
    publisher = Publisher(run.endpoints["kafka"], topic.removesuffix(TYPE))
    with (
        connect(counter.conninfo) as connection,
        Tap("consumer", run.endpoints["kafka"], [topic], run.recorder(name, "experiment")) as tap,
        connector(run, counter, publisher) if way is Connector else at_work(make(way, counter, connection, publisher)),
    ):
        yield tap


def connector(run: Run, counter: Counter, publisher: Publisher) -> AbstractContextManager[object]:
    """The connector at work, on the topics that a publisher with this prefix would send to."""
    route = {"transforms.outbox.route.topic.replacement": f"{publisher.prefix}${{routedByValue}}"}
    endpoints, name = run.endpoints, f"{counter.slot}_debezium"
    return Connector(endpoints["connect"], endpoints["postgres"], name, counter.slot, settings=route).running()


def make(way: Contender, counter: Counter, connection: Connection, publisher: Publisher) -> Relay:
    if way is WalRelay:
        return WalRelay(counter.conninfo, connection, publisher, counter.slot)
    return cast(type[PollingPublisher], way)(connection, publisher)
