"""Readers of the outbox at work: what they read is written down as deliveries to them."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from outbox.relay.message import OutboxRow, Row, text
from outbox.relay.reading import Place, Reader
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.wait import until

BATCH = 500


class Pages(Protocol):
    """What every reader can do: hand out the next rows, and move on behind them."""

    def pages(self, limit: int) -> Iterator[list[Row]]: ...


Way = Callable[[Connection], Pages]  # how a reader is made that begins at the first row


def windows(connection: Connection) -> Reader:
    """RIGHT: by snapshot windows, from the first row on."""
    return Reader(connection, Place())


def follow(conninfo: str, history: Path, way: Way, name: str, ready: Path, interval: float = 0.001) -> None:
    """A process: read until SIGTERM, then what is left. Every row is a delivery to `name`. `ready`: it reads.

    `interval`: seconds between two looks when there is no news.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Recorder(history, name) as recorder, connect(conninfo) as connection:
        reader = way(connection)
        deliver(reader, recorder)
        ready.touch()
        while not stop.is_set():
            if deliver(reader, recorder) < BATCH:
                stop.wait(interval)
        finish(connection, lambda: deliver(reader, recorder))


def deliver(reader: Pages, recorder: Recorder) -> int:
    """Read a batch, write it down; returns how many rows."""
    read = [OutboxRow._make(row) for rows in reader.pages(BATCH) for row in rows]
    recorder.add(*(_delivery(row, recorder.process) for row in read))
    return len(read)


def finish(connection: Connection, step: Callable[[], int]) -> None:
    """Step until there is no more: all that is committed by now, also what open transactions would hold back."""
    row = connection.execute("select pg_current_xact_id()::text").fetchone()
    ended = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
    until("earlier transactions to end", lambda: (connection.execute(ended, row).fetchone() or [False])[0])
    while step():
        continue


def _delivery(row: OutboxRow, name: str) -> Op:
    return Op(now(), name, Action.DELIVER, Outcome.OK, text(row.id), text(row.aggregate_id), int(row.sequence))
