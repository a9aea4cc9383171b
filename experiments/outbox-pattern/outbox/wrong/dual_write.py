"""WRONG: two writes without a transaction over both. Either order of them leaves damage."""

from confluent_kafka import Producer

from outbox.service import publish
from outbox.table import insert_step
from outbox.windows import Hook, WriteWindow, nowhere
from shared.event import Event
from shared.postgres import Connection


def commit_then_publish(
    connection: Connection, producer: Producer, topic: str, event: Event, at: Hook = nowhere
) -> None:
    """WRONG, and the usual way: the row is there, and the process may die before the event is."""
    at(WriteWindow.BEFORE)
    with connection.transaction():
        insert_step(connection, event)
    at(WriteWindow.BETWEEN)
    publish(producer, topic, event)
    at(WriteWindow.AFTER)


def publish_then_commit(
    connection: Connection, producer: Producer, topic: str, event: Event, at: Hook = nowhere
) -> None:
    """WRONG the other way: the event is out before the row, which a crash or the database may prevent."""
    at(WriteWindow.BEFORE)
    publish(producer, topic, event)
    at(WriteWindow.BETWEEN)
    with connection.transaction():
        insert_step(connection, event)
    at(WriteWindow.AFTER)
