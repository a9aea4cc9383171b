"""The shop's service: one step of an order is one business row and one event. Ways to do both.

Each way takes the hook `at`, which is called in every crash window and does nothing in normal operation.
"""

from collections.abc import Callable

from confluent_kafka import KafkaException, Message, Producer
from sqlalchemy import text
from sqlalchemy.orm import Session

from outbox.relay.notified import ring
from outbox.session import add_event
from outbox.table import insert_event, insert_step, step_values
from outbox.windows import Hook, WriteWindow, nowhere
from shared.event import Event
from shared.postgres import Connection

STEP = "insert into order_steps (order_id, number, status, cents) values (:order, :number, :status, :cents)"
Write = Callable[[Connection, Producer, str, Event, Hook], None]


def write_with_outbox(
    connection: Connection, producer: Producer | None, aggregate_type: str, event: Event, at: Hook = nowhere
) -> None:
    """RIGHT: both rows in one transaction, so both or neither. A relay publishes later: no producer is used."""
    at(WriteWindow.BEFORE)
    with connection.transaction():
        insert_step(connection, event)
        at(WriteWindow.BETWEEN)
        insert_event(connection, event, aggregate_type)
    at(WriteWindow.AFTER)


def write_and_ring(
    connection: Connection, producer: Producer | None, aggregate_type: str, event: Event, at: Hook = nowhere
) -> None:
    """RIGHT, where a relay is to be woken: the ring comes after the commit. A crash in between costs a wait."""
    write_with_outbox(connection, producer, aggregate_type, event, at)
    ring(connection)


def write_in_session(session: Session, aggregate_type: str, event: Event, at: Hook = nowhere) -> None:
    """RIGHT, too: both rows in the transaction of a SQLAlchemy session."""
    at(WriteWindow.BEFORE)
    session.execute(text(STEP), dict(zip(("order", "number", "status", "cents"), step_values(event), strict=True)))
    at(WriteWindow.BETWEEN)
    add_event(session, event, aggregate_type)
    session.commit()
    at(WriteWindow.AFTER)


def publish(producer: Producer, topic: str, event: Event) -> None:
    """Send one event and wait for the broker's acknowledgement. Raises KafkaException."""
    errors: list[KafkaException] = []

    def delivered(error: object, message: Message) -> None:
        if error is not None:
            errors.append(KafkaException(error))

    message = event.to_kafka()
    producer.produce(topic, message.value, message.key, headers=dict(message.headers), on_delivery=delivered)
    producer.flush()
    if errors:
        raise errors[0]
