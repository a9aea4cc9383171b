"""A consumer whose effects must count once: at-least-once, with the event's id in the transaction of its effect."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import Message
from msgspec import Struct

from outbox import inbox
from outbox.windows import Hook
from shared import codec
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
    """One event as it came, and what a way needs to handle it."""

    connection: Connection
    group: str
    event: Event
    message: Message
    at: Hook  # called in every window
    done: Callable[[], None]  # called when the effect is committed


Way = Callable[[Delivery], None]


def with_inbox(it: Delivery) -> None:
    """RIGHT: event id and effect in one transaction."""

    def effect(connection: Connection, event: Event) -> None:
        credit(connection, event)
        it.at(ConsumeWindow.BETWEEN)

    if inbox.once(it.connection, it.group, it.event, effect):
        it.done()
