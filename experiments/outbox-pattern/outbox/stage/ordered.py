"""Few orders with many events, published in several ways, and what a consumer sees of their order."""

import random
from contextlib import closing

from confluent_kafka import Producer

from outbox.ordering import InOrder, java_partition
from outbox.relay.cursor import CursorRelay
from outbox.relay.publisher import Publisher
from outbox.stage.consuming import BusyOrders
from outbox.stage.processes import noted, write_backlog
from outbox.table import create, insert_event, pending
from outbox.wrong.deleting import SkipLockedRelay
from outbox.wrong.placing import Placing, partitions
from shared import kafka
from shared.checkers import duplicate_delivery, lost, reordered
from shared.event import Event
from shared.history import Action, History, Op, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.run import About, Run
from shared.tap import Tap
from shared.wait import until
from shared.worker import announce, until_told

ORDERS = 4  # few, so that the events of one order come close together
PARTITIONS = 3
Kind = type[SkipLockedRelay] | type[CursorRelay]


def open_shop(run: Run, name: str, count: int) -> BusyOrders:
    """Busy orders, with an outbox and a topic."""
    conninfo = run.schema(f"_{len(run.histories)}")
    create(conninfo)
    topic, history = run.topic(name, PARTITIONS), run.history_file(name)
    return BusyOrders(conninfo, run.endpoints["kafka"], topic, history, run.seed, count, orders=ORDERS)


def insert_all(connection: Connection, shop: BusyOrders, recorder: Recorder) -> None:
    """All events into the outbox, by this session."""
    for event in shop.events():
        insert_event(connection, event, shop.topic)
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)


def slug(way: str) -> str:
    """A variant's name as that of a history and a topic."""
    return "-".join(word.strip("(),") for word in way.lower().split())


def relayed(about: About, kind: Kind, relays: int, count: int) -> History:
    """So many relay processes, and a backlog for them when all of them look for one."""
    run, name = about.run, slug(about.variant)
    shop = open_shop(run, name, count)
    with Tap("consumer", shop.broker, [shop.topic], run.recorder(name, "experiment")) as tap:
        names = [f"relay-{number}" for number in range(1, relays + 1)]
        workers = [run.worker(relay, _relay, shop, kind, relay) for relay in names]
        for worker in workers:
            worker.ready()
        write_backlog(shop)
        with connect(shop.conninfo) as connection:
            if kind is SkipLockedRelay:  # it deletes what it has published
                until("the outbox to be empty", lambda: pending(connection) == 0, 120)
        tap.wait_for(count)
        for worker in workers:
            worker.stop()
        tap.catch_up()
    return about.judge(name)


def _relay(shop: BusyOrders, kind: Kind, name: str) -> None:
    """A process: relay until SIGTERM; announced when it has looked once for what there is."""
    stop = until_told()
    with Recorder(shop.history, name) as recorder, connect(shop.conninfo) as connection:
        publisher = Publisher(shop.broker, on_acknowledged=noted(recorder))
        with closing(kind(connection, publisher, interval=0.02)) as relay:
            relay.step()
            announce()
            relay.run(stop)


def published(about: About, placing: Placing, count: int) -> History:
    """Published one by one, each acknowledged before the next. The consumer comes when all of them are there."""
    name = slug(about.variant)
    shop = open_shop(about.run, name, count)
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
    return about.judge(name)


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
