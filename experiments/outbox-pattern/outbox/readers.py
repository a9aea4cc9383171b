"""Readers that follow the outbox by remembering how far they are, and three ways to say "what comes after".

Positions are given out in the order of nextval, rows appear in the order of commit. Of the three ways only the last one
reads by an order in which no row can appear late; it is the CursorRelay's (relay/cursor.py).
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from outbox.processes import Shop
from outbox.table import insert_event, insert_step
from shared.event import Event
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.wait import until

OLDEST = "outbox_xid(pg_snapshot_xmin(pg_current_snapshot()))"  # the number of the oldest open transaction
# Way -> (what comes after the last row, in which order).
WAYS = {
    "position > last": ("position > %(position)s", "position"),
    "position > last, behind open transactions": (
        f"position > %(position)s and xid < {OLDEST}",
        "position",
    ),
    "(xid, position) > last": (
        f"(xid, position) > (%(xid)s::text::xid8, %(position)s) and xid < {OLDEST}",
        "xid, position",
    ),
}
BATCH = 500
ROLLED_BACK = 0.05  # share of transactions that are rolled back after all: their positions are never seen


@dataclass
class Reader:
    """Reads on from the last row, in one of WAYS. `take` gets (event id, aggregate id, sequence) of every row."""

    connection: Connection
    way: str
    take: Callable[[str, str, int], None]
    xid: str = "0"
    position: int = 0

    def step(self) -> int:
        """Read what there is, up to a batch; returns how many rows."""
        after, order = WAYS[self.way]
        page = (
            "select xid::text as xid_text, position, id::text, aggregate_id, sequence from outbox "  # noqa: S608
            f"where {after} order by {order} limit {BATCH}"
        )
        place = {"xid": self.xid, "position": self.position}
        rows = self.connection.execute(page, place, prepare=True).fetchall()
        for xid, position, ident, key, sequence in rows:
            self.take(ident, key, sequence)
            self.xid, self.position = xid, position
        return len(rows)

    def finish(self) -> None:
        """Read all that is committed by now, also what transactions still open would hold back."""
        row = self.connection.execute("select pg_current_xact_id()::text").fetchone()
        mine = row[0] if row else "0"
        ended = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
        until("earlier transactions to end", lambda: (self.connection.execute(ended, [mine]).fetchone() or [False])[0])
        while self.step():
            continue


def read(shop: Shop, way: str, name: str, interval: float = 0.001, ready: Path | None = None) -> None:
    """A process: read until SIGTERM, every row a delivery to `name`, then what is left. `ready`: it reads."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Recorder(shop.history, name) as recorder, connect(shop.conninfo) as connection:

        def take(ident: str, key: str, sequence: int) -> None:
            recorder.add(Op(now(), name, Action.DELIVER, Outcome.OK, ident, key, sequence))

        reader = Reader(connection, way, take)
        reader.step()
        if ready:
            ready.touch()
        while not stop.is_set():
            if reader.step() < BATCH:
                stop.wait(interval)
        reader.finish()


def overtake(shop: Shop, passed: Callable[[Event], object]) -> None:
    """Two transactions: the younger one draws the lower position, and commits when `passed` the older one's event.

    So neither positions nor transaction ids are in the order of commit: readers by position have passed it over.
    """
    first, second = replace(shop, count=2, prefix="overtaking").events()
    with (
        Recorder(shop.history, "service") as recorder,
        connect(shop.conninfo) as older,
        connect(shop.conninfo) as other,
    ):
        with other.transaction():
            with older.transaction():
                insert_step(older, first)  # has its transaction id
                insert_step(other, second)
                insert_event(other, second, shop.topic)  # has its position
                insert_event(older, first, shop.topic)
            recorder.record(Action.WRITE, Outcome.OK, first.id, key=first.subject, seq=first.sequence)
            passed(first)
        recorder.record(Action.WRITE, Outcome.OK, second.id, key=second.subject, seq=second.sequence)


def write_concurrently(shop: Shop, writers: int, pause: float) -> None:
    """A process: so many threads, each with a connection and orders of its own, whose transactions take their time."""
    shops = [replace(shop, seed=shop.seed + number, prefix=f"order{number}") for number in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        for written in [pool.submit(_write, own, pause) for own in shops]:
            written.result()


def _write(shop: Shop, pause: float) -> None:
    """Business row, then outbox row; before and after it, the work of a seeded while."""
    rng = random.Random(f"{shop.seed} {shop.prefix}")  # noqa: S311
    with Recorder(shop.history, f"service-{shop.prefix}") as recorder, connect(shop.conninfo) as connection:
        for event in shop.events():
            before, after = rng.uniform(0, pause), rng.uniform(0, pause)
            outcome = _transaction(connection, event, shop.topic, before, after, rng.random() < ROLLED_BACK)
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=event.sequence)


def _transaction(
    connection: Connection, event: Event, topic: str, before: float, after: float, undone: bool
) -> Outcome:
    with connection.transaction():
        insert_step(connection, event)
        time.sleep(before)
        insert_event(connection, event, topic)
        time.sleep(after)
        if undone:
            raise psycopg.Rollback
    return Outcome.FAIL if undone else Outcome.OK
