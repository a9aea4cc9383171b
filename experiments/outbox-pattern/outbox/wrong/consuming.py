"""WRONG: consumers that know an event again by the wrong thing, at the wrong moment, or not at all; one that ends."""

import hashlib

from confluent_kafka import Message

from outbox import inbox
from outbox.consumer import Consumer, ConsumeWindow, Delivery, credit, handle
from shared import kafka

ENTER_MARK = "insert into seen values (%s) on conflict do nothing"


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


def handle_or_end(consumer: Consumer, message: Message) -> None:
    """WRONG: the first message that it cannot use ends it, at every start again; nothing behind it is handled."""
    handle(consumer, message)
