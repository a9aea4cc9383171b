"""The inbox: a consumer's memory of what it has handled, in the same transaction as the effect.

An event that comes again finds its id there, and has no second effect. An id must be kept for as long as its event may
still come again: the broker's retention, plus the longest that a relay may be down.
"""

from collections.abc import Callable
from datetime import timedelta

from psycopg.errors import SerializationFailure
from psycopg.pq import TransactionStatus

from shared.event import Event
from shared.postgres import Connection

SCHEMA = """
create table inbox (
    consumer   text not null,
    source     text not null,      -- CloudEvents: an event is the same when source and id are
    event_id   text not null,
    handled_at timestamptz not null default clock_timestamp(),
    primary key (consumer, source, event_id)
);
create index inbox_age on inbox (handled_at);
"""
ENTER = "insert into inbox (consumer, source, event_id) values (%s, %s, %s) on conflict do nothing"


def once(connection: Connection, consumer: str, event: Event, effect: Callable[[Connection, Event], None]) -> bool:
    """Have the effect, unless this consumer had it before; returns whether it was had. One transaction for both.

    Where transactions are serializable, one that had to give way is tried again; in a transaction of the caller that is
    the caller's to do, and psycopg.errors.SerializationFailure is raised.
    """
    while True:
        try:
            with connection.transaction():
                new = connection.execute(ENTER, [consumer, event.source, event.id]).rowcount == 1
                if new:
                    effect(connection, event)
            return new
        except SerializationFailure:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                raise


def forget(connection: Connection, age: timedelta) -> int:
    """Drop ids handled longer ago than `age`; returns how many. Their events must not be able to come again."""
    return connection.execute("delete from inbox where handled_at < clock_timestamp() - %s", [age]).rowcount
