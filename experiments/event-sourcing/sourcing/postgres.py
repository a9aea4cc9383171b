"""The reference: an event store in one Postgres table.

Writers never wait for each other: no table lock, no advisory lock, no NOTIFY, no counter row. What keeps a stream
right is its primary key. What keeps readers right is that they page by (xid, position) behind the oldest transaction
that is still open (PostgreSQL documentation, "Transaction ID and Snapshot Information Functions"); the price is that
one long transaction anywhere in the database holds all of them back. What `read_all` promises is said in store.py; who
needs cause before effect across streams, or must not wait, reads by windows: windowed.py.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import Cursor
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation
from psycopg.pq import TransactionStatus
from psycopg.types.array import ListBinaryDumper

from shared import home
from shared.postgres import Connection, connect
from sourcing.errors import StreamDeleted, TransactionTooOld, WrongExpectedVersion
from sourcing.event import (
    START,
    TOMBSTONE,
    NewEvent,
    Position,
    Recorded,
    check_name,
    custom_of,
    encode,
    encode_custom,
)
from sourcing.store import ANY, Capability, StreamMetadata, event_id

T = TypeVar("T")
SCHEMA = Path(__file__).with_name("schema.sql")
TABLE, COMMAND = "events", "lab sourcing"  # see shared/home.sql
# Two transactions that cannot both have been first; the one that is told has written nothing.
TOGETHER = SerializationFailure, DeadlockDetected

INTO = "insert into events (stream, version, type, schema_version, id, data, metadata)"
# What is appended: $1 is the stream, $2 the version that the writer saw last.
ONE = f"{INTO} select $1, $2::bigint + 1, $3, $4, $5, $6, $7"
MANY = f"""{INTO}
select $1, $2::bigint + number, new.type, new.schema_version, new.id, new.data, new.metadata
from unnest($3::text[], $4::int[], $5::uuid[], $6::bytea[], $7::bytea[])
     with ordinality as new (type, schema_version, id, data, metadata, number)"""  # noqa: S608
# To a new stream: nothing may be there, not even a later version that a scavenge has left.
NOTHING = "not exists (select from events where stream = $1)"
# To a stream that is there: the event that the writer saw last must be there, and no tombstone; the next one must not,
# says the key. Nor may it be of a newer transaction (one that drew its xid before can have an older one): readers by
# (xid, position) would get the versions in the wrong order.
LAST_SEEN = "stream = $1 and version = $2 and type <> '$deleted' and xid <= events_xid(pg_current_xact_id())"
LAST = "select version, type from events where stream = %s order by version desc limit 1"
WRITTEN = "select id::text from events where stream = %s and version > %s order by version limit %s"
# `xid_text`: a cast that kept its name would hide the column from ORDER BY, and the index with it.
COLUMNS = (
    "stream, version, type, schema_version, data, metadata, id::text as id_text, xid::text::bigint as xid_number, "
    "position, recorded_at"
)
READ = f"""
select {COLUMNS} from events
where stream = %(stream)s and version > %(after)s
  and version >= coalesce((select truncate_before from stream_metadata where stream = %(stream)s), 1)
  and not exists (select from events where stream = %(stream)s and type = '$deleted')
order by version """  # noqa: S608
FORWARDS, BACKWARDS = f"{READ} limit %(limit)s", f"{READ} desc limit %(limit)s"
BEFORE = "version > %(after)s and version < %(before)s"
READ_ALL = f"""
select {COLUMNS} from events
where (xid, position) > (%s::bigint::text::xid8, %s) and xid < events_xid(pg_snapshot_xmin(pg_current_snapshot()))
order by xid, position limit %s
"""  # noqa: S608


class Append(NamedTuple):
    """The statement for a new stream, and that for one which is there."""

    first: str
    next: str


APPEND_ONE = Append(f"{ONE} where {NOTHING}", f"{ONE} from events where {LAST_SEEN}")
APPEND_MANY = Append(f"{MANY} where {NOTHING}", f"{MANY} where exists (select from events where {LAST_SEEN})")
SCAVENGE = """
delete from events using (
    select stream, max(version) as last, bool_or(type = '$deleted') as deleted, min(truncate_before) as truncate_before
    from events join (
        select stream, truncate_before from stream_metadata where truncate_before > 1
        union all select stream, 1 from events where type = '$deleted'
    ) as chosen using (stream)
    group by stream
) as stale
where events.stream = stale.stream and version < last and (deleted or version < truncate_before)
"""
SET_METADATA = """
insert into stream_metadata values (%s, %s, %s)
on conflict (stream) do update set truncate_before = excluded.truncate_before, custom = excluded.custom
"""
PAGE = 5000  # events per round trip of a read
END = 2**63 - 1  # above every version
PAUSE = 0.01  # seconds between two looks of a subscription that has caught up


def script() -> str:
    """SQL that makes the tables in the first schema of the search path."""
    return SCHEMA.read_text() + home.script(TABLE, COMMAND)


def create(conninfo: str) -> None:
    """Create the tables in the first schema of the connection's search path."""
    with connect(conninfo) as connection:
        connection.execute(script())


def run(cursor: Cursor[T], query: str, values: Sequence[Any] | dict[str, Any]) -> Cursor[T]:
    """One statement. Alone, it is tried again where it was refused for the sake of others: nothing was done."""
    while True:
        try:
            return cursor.execute(query, values, prepare=True)
        except TOGETHER:
            if cursor.connection.pgconn.transaction_status != TransactionStatus.IDLE:
                raise


class PostgresStore:
    """An EventStore on one connection, for one thread.

    Inside a transaction of the caller's, an append is part of it, and may raise TransactionTooOld: then all of it is to
    be rolled back and done again. Under every isolation level.
    """

    name = "PostgreSQL"
    capabilities = frozenset(Capability)

    def __init__(self, connection: Connection) -> None:
        """Raises NotAdopted where the events were restored from another cluster."""
        home.check(connection, TABLE, COMMAND)
        self.connection = connection
        # Kept: a new cursor for each append would cost 18 µs, a tenth of its time. Arrays go as binary: as text, one of
        # 100 bytea takes psycopg 500 µs to write, against 20.
        self._appending = psycopg.RawCursor(connection)
        self._appending.adapters.register_dumper(list, ListBinaryDumper)
        self._rows = connection.cursor(binary=True, row_factory=lambda cursor: Recorded._make)

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        check_name(stream)
        statements, values = _statement(stream, events)
        while True:  # under ANY: the version is looked up again whenever another writer took it meanwhile
            version = values[1] = self._version(stream) if expected == ANY else expected
            try:
                written = self._insert(statements.next if version else statements.first, values)
            except UniqueViolation:
                written = 0
            except TOGETHER as error:  # in the caller's transaction, which cannot go on
                raise TransactionTooOld(stream) from error
            if written:
                return version + written
            if expected == ANY and self._version(stream) > version:  # not so in an old snapshot
                continue
            return self._settle(stream, events, expected)

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        asked, query = PAGE if limit is None else min(PAGE, limit), BACKWARDS if backwards else FORWARDS
        values = {"stream": stream, "after": after, "limit": asked}
        page = run(self._rows, query, values).fetchall()
        yield from page
        if page and len(page) == asked:
            rest = None if limit is None else limit - asked
            low, high = (after, page[-1].version) if backwards else (page[-1].version, END)
            yield from self._read_on(stream, low, high, rest, backwards)

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        return run(self._rows, READ_ALL, [*after, limit]).fetchall()

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        while not stop.is_set():
            page = self.read_all(after)
            yield from page
            if page:
                after = page[-1].place
            else:
                stop.wait(PAUSE)

    def metadata(self, stream: str) -> StreamMetadata:
        query = "select truncate_before, custom from stream_metadata where stream = %s"
        row = run(self.connection.cursor(), query, [stream]).fetchone()
        return StreamMetadata(row[0], custom_of(stream, row[1])) if row else StreamMetadata()

    def set_metadata(self, stream: str, metadata: StreamMetadata) -> None:
        check_name(stream)
        row = [stream, metadata.truncate_before, encode_custom(stream, metadata.custom)]
        run(self.connection.cursor(), SET_METADATA, row)

    def delete(self, stream: str, expected: int = ANY) -> None:
        self.append(stream, [NewEvent(TOMBSTONE, {})], expected)

    def scavenge(self) -> int:
        return run(self.connection.cursor(), SCAVENGE, []).rowcount

    def close(self) -> None:
        self.connection.close()

    def _read_on(self, stream: str, low: int, high: int, limit: int | None, backwards: bool) -> Iterator[Recorded]:
        """What lies between two versions, page by page."""
        query = (BACKWARDS if backwards else FORWARDS).replace("version > %(after)s", BEFORE)
        near = True  # only the next versions: with old statistics, Postgres may sort all that a page could be of
        while asked := PAGE if limit is None else min(PAGE, limit):
            first = max(low, high - asked - 1) if near and backwards else low
            last = min(high, low + asked + 1) if near and not backwards else high
            values = {"stream": stream, "after": first, "before": last, "limit": asked}
            page = run(self._rows, query, values).fetchall()
            yield from page
            if not (near or len(page) == asked):
                return
            if page:
                low, high = (low, page[-1].version) if backwards else (page[-1].version, high)
            near = len(page) == asked  # if not: it is the end, or versions are missing
            limit = None if limit is None else limit - len(page)

    def _insert(self, query: str, values: Sequence[Any]) -> int:
        if self.connection.pgconn.transaction_status == TransactionStatus.IDLE:
            return run(self._appending, query, values).rowcount
        with self.connection.transaction():  # a savepoint: a conflict leaves the caller's transaction usable
            return self._appending.execute(query, values, prepare=True).rowcount

    def _version(self, stream: str) -> int:
        row = run(self.connection.cursor(), LAST, [stream]).fetchone()
        if row and row[1] == TOMBSTONE:
            raise StreamDeleted(stream)
        return int(row[0]) if row else 0

    def _settle(self, stream: str, events: Sequence[NewEvent], expected: int) -> int:
        """Nothing was written: because it was written before, and the answer lost, or because the stream has moved."""
        if expected != ANY:
            found = run(self.connection.cursor(), WRITTEN, [stream, expected, len(events)]).fetchall()
            if [ident for (ident,) in found] == [event_id(stream, event) for event in events]:
                return expected + len(events)
        actual = self._version(stream)
        if expected in (ANY, actual):
            raise TransactionTooOld(stream)
        raise WrongExpectedVersion(stream, expected, actual)


def _statement(stream: str, events: Sequence[NewEvent]) -> tuple[Append, list[Any]]:
    """The statements for one event, which are cheaper, or for several at once; and their values, the version 0."""
    if not events:
        raise ValueError(f"nothing to append to {stream!r}")
    columns = ((event.type, event.schema_version, event_id(stream, event), *encode(stream, event)) for event in events)
    if len(events) == 1:
        return APPEND_ONE, [stream, 0, *next(columns)]
    return APPEND_MANY, [stream, 0, *map(list, zip(*columns, strict=True))]
