"""Readers of all events that remember how far they are, and what is done to them.

Positions are drawn in the order of the inserts, events appear in the order of the commits: so there are writers whose
transactions take their time, two transactions that pass each other, one that stays open, and an effect that is appended
in a transaction older than its cause. What waits here waits until what it is to show has happened: how fast the machine
is does not matter.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from shared.experiment import Run
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect, number
from shared.wait import until
from shared.worker import Worker, until_told
from sourcing.errors import TransactionTooOld
from sourcing.event import START, Metadata, NewEvent, Position, Recorded
from sourcing.holdback import HoldingBack, oldest_writer
from sourcing.postgres import PostgresStore, create
from sourcing.stage.bank import Bank, Movement, gate, pass_gate

PAGE = 500
PATIENCE = 60.0  # seconds for readers and writers to do something
ROLLED_BACK = 0.05  # share of transactions that are rolled back after all: their positions are never seen
# What a transaction of the application writes beside its events.
NOTES = "create table notes (text text not null)"
NOTE = "insert into notes values ('this draws the xid')"
REPORT = "nightly-report"  # the application whose transaction stays open
SETTLED = "select pg_snapshot_xmin(pg_current_snapshot()) >= %s::text::xid8"
BLIND = """
insert into events (stream, version, type, schema_version, id, data, metadata)
select stream, version + 1, type, schema_version, gen_random_uuid(), data, metadata from events
"""
CAUSE, EFFECT = NewEvent("Requested", {}), NewEvent("Granted", {})
CAUSES = """
select id::text, convert_from(metadata, 'utf8')::jsonb->>'causation_id' from events
where convert_from(metadata, 'utf8')::jsonb->>'causation_id' is not null
"""


@dataclass(frozen=True)
class Query:
    """A way to say what comes next. `read` gets the place of the reader, and gives the next events and their place."""

    name: str
    slug: str  # in names of files and processes
    read: Callable[[Connection, Any, int], tuple[Sequence[Recorded], Any]]
    start: Any = START
    wrong: bool = False


def by_xid_and_position(
    connection: Connection, after: Position, limit: int = PAGE
) -> tuple[Sequence[Recorded], Position]:
    """The store's own way."""
    events = PostgresStore(connection).read_all(after, limit)
    return events, events[-1].place if events else after


def open_bank(run: Run, each: int, writers: int, suffix: str = "") -> Bank:
    """Tables, and the index that readers by position want. A writer has a stream of its own."""
    conninfo = run.schema(suffix)
    create(conninfo)
    with connect(conninfo) as connection:
        connection.execute("create index on events (position)")
        connection.execute(NOTES)
    return Bank(conninfo, run.history_file(f"writes{suffix}"), run.seed, each, writers)


def own_history(run: Run, bank: Bank, query: Query, suffix: str = "") -> Bank:
    return replace(bank, history=run.history_file(query.slug + suffix))


@dataclass
class Reader:
    """Reads on from the last event, and hands every event to `take`."""

    connection: Connection
    query: Query
    take: Callable[[Recorded], object]

    def __post_init__(self) -> None:
        self.place = self.query.start

    def step(self) -> int:
        """Read what there is, up to a page; returns how many events."""
        page, self.place = self.query.read(self.connection, self.place, PAGE)
        for event in page:
            self.take(event)
        return len(page)

    def finish(self) -> None:
        """Read all that is committed by now, also what transactions still open would hold back."""
        row = self.connection.execute("select pg_current_xact_id()::text").fetchone()
        mine = row[0] if row else "0"
        ended = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
        until("earlier transactions to end", lambda: (self.connection.execute(ended, [mine]).fetchone() or [False])[0])
        while self.step():
            continue


def follow(bank: Bank, query: Query, interval: float = 0.01) -> None:
    """A process: read until SIGTERM, every event a delivery to it, then what is left."""
    stop, name = until_told(), query.slug
    with Recorder(bank.history, name) as recorder, connect(bank.conninfo) as connection:

        def take(event: Recorded) -> None:
            recorder.add(Op(now(), name, Action.DELIVER, Outcome.OK, event.id, event.stream, event.version))

        reader = Reader(connection, query, take)
        while not stop.is_set():
            if reader.step() < PAGE:
                stop.wait(interval)
        reader.finish()


def read_along(run: Run, bank: Bank, queries: Sequence[Query], suffix: str = "") -> list[Worker]:
    """Readers of the bank's events, each a process with a history of its own."""
    return [run.worker(query.slug, follow, own_history(run, bank, query, suffix), query) for query in queries]


# Writers whose transactions take their time.


def write_unevenly(bank: Bank, teller: int, pause: float) -> None:
    """A process: one event per transaction, which is open for up to twice `pause` seconds and writes other things too.

    Until all deposits are done, or until SIGTERM.
    """
    stop = until_told()
    rng = random.Random(f"{bank.seed} {teller}")
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        store = PostgresStore(connection)
        pass_gate(connection)
        for movement in bank.deposits(teller):
            if stop.is_set():
                break
            recorder.record(Action.WRITE, Outcome.INVOKE, movement.id, key=movement.account)
            outcome = _transaction(store, movement, bank.account(teller + 1), rng, pause)
            recorder.record(Action.WRITE, outcome, movement.id, key=movement.account)


def write_at_once(run: Run, bank: Bank, writers: int, pause: float) -> list[Worker]:
    """So many of them, begun together."""
    with gate(bank.conninfo, writers):
        return [run.worker(f"teller-{n}", write_unevenly, bank, n, pause) for n in range(writers)]


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


# Two transactions that pass each other.


def await_readers(bank: Bank, readers: Sequence[Path], cross: bool) -> None:
    """Write a first event and wait until it is in the histories of all the readers: from now on they read.

    With `cross`, a second event is open meanwhile, of a newer transaction and with an older position: whoever reads on
    by position has passed over it, and has no way back.
    """
    first, second = (next(bank.movements(-1, f"{name}-of-all", 1)) for name in ("first", "second"))
    with Recorder(bank.history, "first") as recorder, connect(bank.conninfo) as older, connect(bank.conninfo) as newer:
        with newer.transaction():
            with older.transaction():
                older.execute(NOTE)
                if cross:
                    _append(newer, recorder, second)
                _append(older, recorder, first)
            recorder.record(Action.WRITE, Outcome.OK, first.id, key=first.account)
            until("readers to read", lambda: all(_has_read(path, first.id) for path in readers), PATIENCE)
        if cross:
            recorder.record(Action.WRITE, Outcome.OK, second.id, key=second.account)


def _append(connection: Connection, recorder: Recorder, movement: Movement) -> None:
    recorder.record(Action.WRITE, Outcome.INVOKE, movement.id, key=movement.account)
    PostgresStore(connection).append(f"account-{movement.account}", [deposited(movement)])


def _has_read(history: Path, ident: str) -> bool:
    return history.exists() and any(op.value == ident for op in History.read(history).delivered)


def overtake(conninfo: str) -> str:
    """A transaction that has its xid already appends to a stream to which a newer one has appended meanwhile.

    Returns what the store says to it. Then its event is inserted all the same, past the store.
    """
    with connect(conninfo) as older, connect(conninfo) as newer, older.transaction():
        older.execute(NOTE)
        PostgresStore(newer).append("account-1", [NewEvent("Deposited", {"cents": 1})])
        try:
            PostgresStore(older).append("account-1", [NewEvent("Deposited", {"cents": 2})])
        except TransactionTooOld as error:
            refused = str(error)
        else:
            refused = ""
        older.execute(BLIND)  # what the append would have come to
    return refused


def versions(conninfo: str, query: Query) -> list[int]:
    """Of all events, as they are read."""
    read: list[int] = []
    with connect(conninfo) as connection:
        Reader(connection, query, lambda event: read.append(event.version)).finish()
    return read


def gaps(conninfo: str) -> tuple[int, int]:
    """Positions that have no event, and all that were drawn."""
    drawn = "pg_sequence_last_value(pg_get_serial_sequence('events', 'position'))"
    with connect(conninfo) as connection:
        rows, highest = connection.execute(f"select count(*), {drawn} from events").fetchone() or (0, 0)  # noqa: S608
    return highest - rows, highest


# One that stays open.


class Spell(NamedTuple):
    """For how long a transaction was open, in ns, and whom the alarm named towards the end."""

    began: int
    ended: int
    named: HoldingBack | None


class Lags:
    """When each event that was read was acknowledged, and when it was read: ns, by the clock of the machine."""

    def __init__(self, writes: Path, reads: Path) -> None:
        history = History.read(*(path for path in (writes, reads) if path.exists()))
        done = {op.value: op.at for op in history.of(Action.WRITE, Outcome.OK)}
        self.events = [(done[op.value], op.at) for op in history.delivered if op.value in done]

    def longest(self, spell: Spell) -> float:
        """In seconds, of the events acknowledged in that time. A reader may be faster than the acknowledgement."""
        lags = (max(read - done, 0) for done, read in self.events if spell.began <= done <= spell.ended)
        return max(lags, default=0) / 1e9

    def meanwhile(self, began: int, ended: int) -> int:
        """How many events were acknowledged in that time and read in it."""
        return sum(began <= done and read <= ended for done, read in self.events)


def hold(bank: Bank, seconds: float, statement: str, reads: Path | None = None) -> Spell:
    """Open for so long after a transaction begun meanwhile was acknowledged.

    With the history of a reader, also until it has read more of what was written meanwhile than an older transaction of
    every writer: the bank's have an account each.
    """

    def read() -> bool:
        return reads is None or Lags(bank.history, reads).meanwhile(began, time.monotonic_ns()) > bank.accounts

    with connect(bank.conninfo) as watching, open_transaction(bank.conninfo) as connection:
        connection.execute(statement)
        began, before = time.monotonic_ns(), _events(watching)
        xid = connection.execute("select pg_current_xact_id_if_assigned()::text").fetchone()
        if xid and xid[0]:  # the alarm would name an older one, and rightly
            until("older transactions to end", lambda: watching.execute(SETTLED, xid).fetchone() == (True,), PATIENCE)
        # Of three by one writer, the second was begun since, and was acknowledged before the third.
        enough = before + 2 * bank.accounts + 1
        until("writers to go on", lambda: _events(watching) >= enough, PATIENCE)
        time.sleep(seconds)
        until("the reader to go on", read, PATIENCE)
        return Spell(began, time.monotonic_ns(), oldest_writer(watching))


@contextmanager
def open_transaction(conninfo: str) -> Iterator[Connection]:
    with connect(make_conninfo(conninfo, application_name=REPORT)) as connection:
        connection.execute("begin isolation level repeatable read")
        yield connection
        connection.execute("commit")


def _events(connection: Connection) -> int:
    return number(connection, "select count(*) from events")


# Cause and effect in two streams. T100 has written something. T101 commits a cause. T100 reads it, appends what follows
# from it, and commits.


def relate(conninfo: str, queries: Sequence[Query], *, by_itself: bool) -> dict[Query, list[str]]:
    """The types that readers get who read before the effect is appended, and again when all is committed.

    It is appended in the transaction that is older than its cause, or else `by_itself`, while that one is still open.
    """
    read: dict[Query, list[str]] = {query: [] for query in queries}
    with connect(conninfo) as reading, connect(conninfo) as older, connect(conninfo) as newer:
        readers = [_reader(reading, query, types) for query, types in read.items()]
        with older.transaction():
            older.execute(NOTE)
            PostgresStore(newer).append("request-1", [CAUSE])
            for reader in readers:
                reader.step()
            writer = PostgresStore(newer if by_itself else older)
            if [event.type for event in writer.read("request-1")] == [CAUSE.type]:
                writer.append("grant-1", [EFFECT])
        for reader in readers:
            reader.finish()
    return read


def _reader(connection: Connection, query: Query, types: list[str]) -> Reader:
    return Reader(connection, query, lambda event: types.append(event.type))


def causes(conninfo: str) -> Mapping[str, str]:
    """Of each event that says so, the id of the one that it follows from."""
    with connect(conninfo) as connection:
        return dict(connection.execute(CAUSES).fetchall())


def too_early(history: History, causes: Mapping[str, str]) -> int:
    """How many events were delivered before the one that they follow from, or without it."""
    place = {op.value: number for number, op in enumerate(history.delivered)}
    return sum(place[effect] < place.get(cause, len(place)) for effect, cause in causes.items() if effect in place)
