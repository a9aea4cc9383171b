"""A consumer whose effects must count once, and a buffer that puts an aggregate's events back into order.

The consumer keeps customers' accounts. It is at-least-once as every Kafka consumer that loses nothing: effect first,
offset after. What differs is how it knows an event that it had before.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from confluent_kafka import OFFSET_STORED, Consumer, Message, TopicPartition
from msgspec import structs

from outbox import deadletters, inbox
from outbox.consumer import ConsumeWindow, Delivery, Way
from outbox.stage.processes import Shop
from shared import kafka, workload
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
BATCH = 10  # messages between two commits of offsets


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


def consume(
    shop: Shop,
    way: Way,
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
                handle(connection, group, way, message, recorder, at)
            if records:
                client.commit(asynchronous=False)
    client.close()


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


def due(shop: Shop) -> Counter[str]:
    """Customer -> cents paid."""
    paid: Counter[str] = Counter()
    for event in shop.events():
        paid[event.data["customer"]] += event.data["cents"]
    return paid


def euros(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def handle_or_end(connection: Connection, group: str, way: Way, message: Message, recorder: Recorder, at: Hook) -> None:
    """WRONG: the first message that it cannot use ends it, at every start again; nothing behind it is handled."""
    place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
    op = Op(now(), recorder.process, Action.DELIVER, Outcome.OK, event.id, event.subject, event.sequence, group=group)
    recorder.add(structs.replace(op, **place))
    way(Delivery(connection, group, event, message, at, partial(_effect, recorder, op)))
    at(ConsumeWindow.AFTER_EFFECT)
