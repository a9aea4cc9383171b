"""A consumer whose effects must count once: at-least-once, with the event's id in the transaction of its effect.

Effect first, offset after: commit a message's offset when `handle_or_keep` has returned.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from confluent_kafka import Message
from msgspec import Struct

from outbox import deadletters, inbox
from outbox.windows import Hook, nowhere
from shared import codec, kafka
from shared.event import Event
from shared.postgres import Connection

CREDIT = """
insert into account values (%s, %s)
on conflict (customer) do update set cents = account.cents + excluded.cents
"""


class ConsumeWindow(StrEnum):
    """Where a consumer can die while it handles one event."""

    BETWEEN = "between effect and id"
    AFTER_EFFECT = "before the offset"


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
    """One event as it came, and what is needed to handle it."""

    connection: Connection
    group: str
    event: Event
    message: Message
    at: Hook  # called in every window
    done: Callable[[], None]  # called when the effect is committed


Handler = Callable[[Delivery], None]


def with_inbox(it: Delivery) -> None:
    """RIGHT: event id and effect in one transaction."""

    def effect(connection: Connection, event: Event) -> None:
        credit(connection, event)
        it.at(ConsumeWindow.BETWEEN)

    if inbox.once(it.connection, it.group, it.event, effect):
        it.done()


class Watcher:
    """Is told what a consumer does, and does nothing by itself."""

    def came(self, message: Message, event: Event) -> None:
        """The message is this event."""

    def done(self, message: Message, event: Event) -> None:
        """Its effect is committed."""

    def refused(self, message: Message, reason: Exception) -> None:
        """It cannot be used."""


@dataclass(frozen=True)
class Consumer:
    """What a consumer has for all of its messages."""

    connection: Connection
    group: str
    handler: Handler
    at: Hook = nowhere
    watcher: Watcher = field(default_factory=Watcher)


def handle_or_keep(consumer: Consumer, message: Message) -> None:
    """RIGHT: what it cannot use is kept, with the reason, and it goes on."""
    try:
        handle(consumer, message)
    except deadletters.UNUSABLE as error:
        consumer.watcher.refused(message, error)
        deadletters.keep(consumer.connection, consumer.group, message, error)


def handle(consumer: Consumer, message: Message) -> None:
    """Read the message, and handle its event. Raises one of deadletters.UNUSABLE."""
    event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
    consumer.watcher.came(message, event)
    done = partial(consumer.watcher.done, message, event)
    consumer.handler(Delivery(consumer.connection, consumer.group, event, message, consumer.at, done))
    consumer.at(ConsumeWindow.AFTER_EFFECT)
