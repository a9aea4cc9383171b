"""A consumer whose effects must count once, and a buffer that puts an aggregate's events back into order.

The consumer keeps customers' accounts. It is at-least-once as every Kafka consumer that loses nothing: effect first,
offset after. What differs is how it knows an event that it had before.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from confluent_kafka import OFFSET_STORED, Consumer, Message, TopicPartition
from msgspec import Struct, structs

from outbox import deadletters, inbox
from outbox.processes import Shop
from shared import codec, kafka, workload
from shared.errors import LabError
from shared.event import Event
from shared.faults import Crash, Hook, nowhere
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect

SCHEMA = f"""
create table account (customer text primary key, cents bigint not null);
create table seen (mark text primary key);
{inbox.SCHEMA}
{deadletters.SCHEMA}
"""
CREDIT = """
insert into account values (%s, %s)
on conflict (customer) do update set cents = account.cents + excluded.cents
"""
ENTER_MARK = "insert into seen values (%s) on conflict do nothing"
BATCH = 10  # messages between two commits of offsets


class ConsumeWindow(StrEnum):
    """Where a consumer can die while it handles one event."""

    BETWEEN = "between effect and id"
    AFTER_EFFECT = "before the offset"


@dataclass(frozen=True)
class Payments(Shop):
    """A shop whose events are instalments: four payments of one order have the same payload, to the byte."""

    def events(self, first: int = 0) -> Iterator[Event]:
        for event in super().events(first):
            data = {name: event.data[name] for name in ("order", "customer", "cents")}
            yield replace(event, type="shop.payment.received", data=data)


@dataclass(frozen=True)
class BusyOrders(Shop):
    """A shop in which few orders have all the events, so that those of one order come close together."""

    orders: int = 4

    def events(self, first: int = 0) -> Iterator[Event]:
        for number, event in enumerate(workload.events(self.seed, self.count, self.orders, self.prefix)):
            if number >= first:
                yield event


class Payment(Struct):
    """What the consumer has to know of an event's data."""

    customer: str
    cents: int


def credit(connection: Connection, event: Event) -> None:
    """The effect. Twice is wrong, and never is wrong. Raises NotReadable, psycopg.DataError: see `deadletters`."""
    payment = codec.convert(event.data, Payment)
    connection.execute(CREDIT, [payment.customer, payment.cents])


@dataclass(frozen=True)
class Delivery:
    """One event as it came, and what a way needs to handle it."""

    connection: Connection
    group: str
    event: Event
    message: Message
    at: Hook  # called in every window
    done: Callable[[], None]  # called when the effect is committed


Way = Callable[[Delivery], None]


def no_inbox(it: Delivery) -> None:
    """WRONG: what comes again has its effect again."""
    credit(it.connection, it.event)
    it.done()


def inbox_first(it: Delivery) -> None:
    """WRONG: the id is noted in a transaction of its own; after a crash in between, the effect is never had."""
    if it.connection.execute(inbox.ENTER, [it.group, it.event.source, it.event.id]).rowcount == 1:
        it.at(ConsumeWindow.BETWEEN)
        credit(it.connection, it.event)
        it.done()


def inbox_last(it: Delivery) -> None:
    """WRONG: the id is noted when the effect is committed; after a crash in between, the effect is had twice."""
    known = "select from inbox where consumer = %s and source = %s and event_id = %s"
    if it.connection.execute(known, [it.group, it.event.source, it.event.id]).fetchone() is None:
        credit(it.connection, it.event)
        it.done()
        it.at(ConsumeWindow.BETWEEN)
        it.connection.execute(inbox.ENTER, [it.group, it.event.source, it.event.id])


def by_offset(it: Delivery) -> None:
    """WRONG: knows a message by its place in the topic. What the relay sends again has a new place."""
    _once_per(f"{it.message.topic()}/{it.message.partition()}/{it.message.offset()}", it)


def by_payload(it: Delivery) -> None:
    """WRONG: knows a message by what it says. Two payments of the same sum say the same."""
    _once_per(hashlib.sha256(kafka.value(it.message) or b"").hexdigest(), it)


def _once_per(mark: str, it: Delivery) -> None:
    with it.connection.transaction():
        new = it.connection.execute(ENTER_MARK, [mark]).rowcount == 1
        if new:
            credit(it.connection, it.event)
            it.at(ConsumeWindow.BETWEEN)
    if new:
        it.done()


def with_inbox(it: Delivery) -> None:
    """RIGHT: event id and effect in one transaction."""

    def effect(connection: Connection, event: Event) -> None:
        credit(connection, event)
        it.at(ConsumeWindow.BETWEEN)

    if inbox.once(it.connection, it.group, it.event, effect):
        it.done()


WAYS: dict[str, Way] = {
    "no inbox": no_inbox,
    "inbox first, effect after": inbox_first,
    "effect first, inbox after": inbox_last,
    "offset as id": by_offset,
    "payload hash as id": by_payload,
    "event id, one transaction": with_inbox,
}


def consume(
    shop: Shop,
    way: str,
    window: ConsumeWindow | None = None,
    nth: int = 1,
    conninfo: str = "",
    handle: Callable[[Connection, str, Way, Message, Recorder, Hook], None] | None = None,
) -> None:
    """A process: handle all that the topic holds from the group's offset on; killed in the window when one is given.

    `conninfo` is the consumer's own database, the shop's unless given. Its group is named after its history.
    """
    handle = handle or handle_or_keep
    group, left = f"{shop.topic}.{shop.history.stem}", set(kafka.end_offsets(shop.broker, shop.topic))
    client = Consumer({**kafka.config(shop.broker), **kafka.CONSUMER, "group.id": group, "enable.partition.eof": True})
    # Assigned, not subscribed: a member killed by -9 would keep its partitions until its session ends.
    client.assign([TopicPartition(shop.topic, partition, OFFSET_STORED) for partition in left])
    with Recorder(shop.history, "consumer") as recorder, connect(conninfo or shop.conninfo) as connection:
        at = Crash(recorder, window, nth) if window else nowhere
        while left:
            messages = client.consume(BATCH, timeout=0.05)
            left -= {kafka.position(message)[0] for message in messages if kafka.at_end(message)}
            records = list(kafka.checked(message for message in messages if not kafka.at_end(message)))
            for message in records:
                handle(connection, group, WAYS[way], message, recorder, at)
            if records:
                client.commit(asynchronous=False)
    client.close()


def handle_or_end(connection: Connection, group: str, way: Way, message: Message, recorder: Recorder, at: Hook) -> None:
    """WRONG: the first message that it cannot use ends it, at every start again; nothing behind it is handled."""
    place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
    op = Op(now(), recorder.process, Action.DELIVER, Outcome.OK, event.id, event.subject, event.sequence, group=group)
    recorder.add(structs.replace(op, **place))
    way(Delivery(connection, group, event, message, at, partial(_effect, recorder, op)))
    at(ConsumeWindow.AFTER_EFFECT)


def handle_or_keep(
    connection: Connection, group: str, way: Way, message: Message, recorder: Recorder, at: Hook
) -> None:
    """RIGHT: what it cannot use is kept, and it goes on."""
    try:
        handle_or_end(connection, group, way, message, recorder, at)
    except deadletters.UNUSABLE as error:
        place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        failed = Op(now(), recorder.process, Action.DELIVER, Outcome.FAIL, note=str(error), group=group)
        recorder.add(structs.replace(failed, **place))
        deadletters.keep(connection, group, message, error)


def _effect(recorder: Recorder, op: Op) -> None:
    recorder.add(structs.replace(op, at=now(), action=Action.EFFECT))


def accounts(conninfo: str) -> dict[str, int]:
    """Customer -> cents."""
    with connect(conninfo) as connection:
        return dict(connection.execute("select customer, cents from account").fetchall())


@dataclass
class InOrder:
    """Releases the events of every aggregate by their sequence numbers, from 1: what comes early is held back.

    What came before is dropped. It remembers in memory only: commit an offset when nothing before it is held.
    """

    limit: int = 1000  # events held at most: a number that never comes must not fill the memory
    next: dict[str, int] = field(default_factory=dict)
    held: dict[str, dict[int, Event]] = field(default_factory=dict)

    def take(self, event: Event) -> list[Event]:
        """The events that may be handled now, in order; one without a number at once.

        Raises LabError when too many wait for one that is missing.
        """
        if not event.sequence:
            return [event]
        expected = self.next.get(event.subject, 1)
        if event.sequence < expected:
            return []
        waiting = self.held.setdefault(event.subject, {})
        waiting[event.sequence] = event
        released = []
        while expected in waiting:
            released.append(waiting.pop(expected))
            expected += 1
        self.next[event.subject] = expected
        if sum(map(len, self.held.values())) > self.limit:
            raise LabError(f"more than {self.limit} events wait; missing: {self.missing()}")
        return released

    def missing(self) -> dict[str, int]:
        """Aggregate -> the number that its held events wait for."""
        return {key: self.next[key] for key, waiting in self.held.items() if waiting}


def java_partition(key: bytes, partitions: int) -> int:
    """Where Java's producer puts a key: murmur2, made positive, modulo the number of partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 with the seed of Kafka's Utils.murmur2, as an unsigned number of 32 bits."""
    m, whole = 0x5BD1E995, len(data) // 4 * 4
    h = 0x9747B28C ^ len(data)
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def due(shop: Shop) -> Counter[str]:
    """Customer -> cents paid."""
    paid: Counter[str] = Counter()
    for event in shop.events():
        paid[event.data["customer"]] += event.data["cents"]
    return paid


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f}"
