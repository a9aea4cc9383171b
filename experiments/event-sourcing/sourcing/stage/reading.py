"""Readers of all events that remember how far they are, and four ways to say "what comes after".

Positions are drawn in the order of the inserts, events appear in the order of the commits. The first two ways pass over
what appears late. The third, the store's own, reads by an order in which nothing can (PostgreSQL documentation,
"Transaction ID and Snapshot Information Functions"). Its price is the wait for every open transaction that has written
anything: `holdback.oldest_writer` tells an operator which one it is. The last one waits for nobody: see windowed.py.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg

from shared.experiment import Run
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.wait import until
from sourcing.event import START, Metadata, NewEvent, Position, Recorded
from sourcing.postgres import READ_ALL, PostgresStore, create
from sourcing.stage.writers import Bank, Movement, pass_gate
from sourcing.windowed import BEGIN, Place, read_window
from sourcing.wrong.positions import PAGE, by_position

ROLLED_BACK = 0.05  # share of transactions that are rolled back after all: their positions are never seen
# What a transaction of the application writes beside its events.
NOTES = "create table notes (text text not null)"


def by_xid_and_position(connection: Connection, after: Position | None) -> tuple[Sequence[Recorded], Position]:
    rows = connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
    events = rows.execute(READ_ALL, [*(after or START), PAGE], prepare=True).fetchall()
    return events, events[-1].place if events else after or START


def by_windows(connection: Connection, after: Place | None) -> tuple[Sequence[Recorded], Place]:
    return read_window(connection, after or BEGIN, PAGE)


TUTORIAL, HALF, PAIR = "position > last", "position > last, behind open transactions", "(xid, position) > last"
WINDOWS = "snapshot windows"
# The next events, and the place behind them, which every way has its own kind of. None: the start.
Way = Callable[[Connection, Any], tuple[Sequence[Recorded], Any]]
WAYS: dict[str, Way] = {
    TUTORIAL: by_position,
    HALF: partial(by_position, behind="and xid < events_xid(pg_snapshot_xmin(pg_current_snapshot()))"),
    PAIR: by_xid_and_position,
    WINDOWS: by_windows,
}

WRONG = TUTORIAL, HALF
SLUGS = {TUTORIAL: "tutorial", HALF: "half-fix", PAIR: "pair", WINDOWS: "windows"}


def open_bank(run: Run, each: int, writers: int, suffix: str = "") -> Bank:
    """Tables, and the index that readers by position want. A writer has a stream of its own."""
    conninfo = run.schema(suffix)
    create(conninfo)
    with connect(conninfo) as connection:
        connection.execute("create index on events (position)")
        connection.execute(NOTES)
    return Bank(conninfo, run.history_file(f"writes{suffix}"), run.seed, each, writers)


def own_history(run: Run, bank: Bank, way: str, suffix: str = "") -> Bank:
    return replace(bank, history=run.history_file(SLUGS[way] + suffix))


@dataclass
class Reader:
    """Reads on from the last event, in one of WAYS, and hands every event to `take`."""

    connection: Connection
    way: str
    take: Callable[[Recorded], object]
    place: Any = None  # the start

    def step(self) -> int:
        """Read what there is, up to a page; returns how many events."""
        page, place = WAYS[self.way](self.connection, self.place)
        for event in page:
            self.take(event)
        self.place = place
        return len(page)

    def finish(self) -> None:
        """Read all that is committed by now, also what transactions still open would hold back."""
        row = self.connection.execute("select pg_current_xact_id()::text").fetchone()
        mine = row[0] if row else "0"
        ended = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
        until("earlier transactions to end", lambda: (self.connection.execute(ended, [mine]).fetchone() or [False])[0])
        while self.step():
            continue


def follow(bank: Bank, way: str, name: str, interval: float = 0.01) -> None:
    """A process: read until SIGTERM, every event a delivery to `name`, then what is left."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Recorder(bank.history, name) as recorder, connect(bank.conninfo) as connection:

        def take(event: Recorded) -> None:
            recorder.add(Op(now(), name, Action.DELIVER, Outcome.OK, event.id, event.stream, event.version))

        reader = Reader(connection, way, take)
        while not stop.is_set():
            if reader.step() < PAGE:
                stop.wait(interval)
        reader.finish()


# Writers whose transactions take their time.


def write_unevenly(bank: Bank, teller: int, pause: float) -> None:
    """A process: one event per transaction, which is open for up to twice `pause` seconds and writes other things too.

    Until all deposits are done, or until SIGTERM.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rng = random.Random(f"{bank.seed} {teller}")  # noqa: RUF100, S311
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        store = PostgresStore(connection)
        pass_gate(connection)
        for movement in bank.deposits(teller):
            if stop.is_set():
                break
            recorder.record(Action.WRITE, Outcome.INVOKE, movement.id, key=movement.account)
            outcome = _transaction(store, movement, bank.account(teller + 1), rng, pause)
            recorder.record(Action.WRITE, outcome, movement.id, key=movement.account)


def _transaction(store: PostgresStore, movement: Movement, neighbour: str, rng: random.Random, pause: float) -> Outcome:
    """The work of a seeded while before the append, and after it. Writing first is what draws the xid early.

    The event follows from the last one that the neighbour's account has.
    """
    before, after, undone = rng.random() < 0.5, rng.uniform(0, pause), rng.random() < ROLLED_BACK
    with store.connection.transaction():
        if before:
            store.connection.execute("insert into notes values (%s)", [movement.id])
        time.sleep(rng.uniform(0, pause))
        store.append(f"account-{movement.account}", [deposited(movement, last_of(store, neighbour))])
        if not before:
            store.connection.execute("insert into notes values (%s)", [movement.id])
        time.sleep(after)
        if undone:
            raise psycopg.Rollback
    return Outcome.FAIL if undone else Outcome.OK


def deposited(movement: Movement, cause: str = "") -> NewEvent:
    """`cause`: the id of the event that it follows from."""
    metadata = Metadata(causation_id=cause)
    return NewEvent("Deposited", {"cents": movement.cents}, metadata=metadata, id=movement.id)


def last_of(store: PostgresStore, account: str) -> str:
    """The id of the account's last event that is committed; empty where it has none."""
    return next((event.id for event in store.read(f"account-{account}", backwards=True, limit=1)), "")
