"""Several services write events of the same orders: an aggregate's order is then made by its lock, not by a writer.

Three shapes of the transaction. Each ends with the order's row updated, which gives the event its number.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import psycopg

from outbox.table import insert_event
from shared.event import Event
from shared.history import Action, Outcome, Recorder
from shared.postgres import Connection, connect

SCHEMA = """
create table orders (order_id text primary key, version bigint not null default 0);
create table audit (note text not null);
"""
LOCK = "update orders set version = version + 1 where order_id = %s returning version"
NUMBER = "update outbox set sequence = %s where id = %s"
AUDIT = "insert into audit values (%s)"
ROLLED_BACK = 0.05  # share of transactions that are rolled back after all


class Shape(StrEnum):
    """What a service does in its transaction, in this order."""

    UPDATE_FIRST = "update the order, insert the event"
    AUDIT_FIRST = "write an audit row, update the order, insert the event"
    EVENT_FIRST = "insert the event, update the order"  # WRONG: it has its place before the order's lock


@dataclass(frozen=True)
class Counter:
    """Services at one counter: who writes where, how many events, of which orders."""

    conninfo: str
    topic: str
    history: Path
    seed: int
    count: int  # transactions of all services together
    orders: int
    services: int
    pause: float = 0.0  # seconds of work at most, before the lock and again behind it

    @property
    def keys(self) -> list[str]:
        return [f"order-{number}" for number in range(self.orders)]


def open_orders(counter: Counter) -> None:
    """Create the orders, none of which has an event yet."""
    with connect(counter.conninfo) as connection:
        connection.execute(SCHEMA)
        connection.cursor().executemany("insert into orders values (%s)", [[key] for key in counter.keys])


def take_turns(counter: Counter, shape: Shape) -> None:
    """A process: the services, each in a thread with a session of its own, at orders drawn by the seed."""
    with ThreadPoolExecutor(counter.services) as pool:
        for done in [pool.submit(_serve, counter, shape, number) for number in range(counter.services)]:
            done.result()


@contextmanager
def changing(connection: Connection, shape: Shape, event: Event, topic: str, pause: float = 0.0) -> Iterator[Event]:
    """The transaction of a service, its work done and not committed: the event with its number, which is in the outbox.

    `pause`: seconds between its first write and the lock.
    """
    with connection.transaction():
        if shape is Shape.AUDIT_FIRST:
            connection.execute(AUDIT, [event.id])
        if shape is Shape.EVENT_FIRST:
            insert_event(connection, event, topic)
        time.sleep(pause)
        [(version,)] = connection.execute(LOCK, [event.subject]).fetchall()
        event = replace(event, sequence=version)
        if shape is Shape.EVENT_FIRST:
            connection.execute(NUMBER, [version, event.id])
        else:
            insert_event(connection, event, topic)
        yield event


def _serve(counter: Counter, shape: Shape, number: int) -> None:
    rng = random.Random(f"{counter.seed} {number}")
    with Recorder(counter.history, f"service-{number}") as recorder, connect(counter.conninfo) as connection:
        for _ in range(counter.count // counter.services):
            event = Event("shop.order.changed", "/shop/orders", rng.choice(counter.keys), {"service": number})
            before, behind, undone = rng.uniform(0, counter.pause), rng.uniform(0, counter.pause), rng.random()
            with changing(connection, shape, event, counter.topic, before) as changed:
                time.sleep(behind)
                if undone < ROLLED_BACK:
                    raise psycopg.Rollback
            outcome = Outcome.FAIL if undone < ROLLED_BACK else Outcome.OK
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=changed.sequence)
