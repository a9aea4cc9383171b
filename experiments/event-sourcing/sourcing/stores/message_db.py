"""message-db: tables and functions for Postgres, of the Eventide project, in a database of their own.

They are fetched when they are first used, by npm; what is taken of the package is in docker/message-db/npm.lock.

An append holds a lock on the stream's category until its transaction ends, so the order within a category has no late
event. Across categories there is no such promise, and no function that reads all: `read_category` is the order it has.
The data is `jsonb`: what comes back means the same, and is not the same bytes.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any, ClassVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import RaiseException

from shared.postgres import Connection, connect, in_schema
from shared.servers import npm
from shared.servers.server import Endpoint
from shared.settings import Settings
from sourcing.errors import NotSupported, StreamNameNotAllowed
from sourcing.event import START, NewEvent, Position, Recorded
from sourcing.store import ANY, Capability
from sourcing.stores.adapting import Refusing, prepared, settled, unwrap, wrap

WRITE = "select write_message(%s, %s, %s, %s::jsonb, %s::jsonb, %s)"
COLUMNS = "stream_name, position + 1, type, data, metadata, id, global_position, time"
READ = f"select {COLUMNS} from get_stream_messages(%s, %s, %s)"  # noqa: S608
READ_CATEGORY = f"select {COLUMNS} from get_category_messages(%s, %s, %s)"  # noqa: S608


def create(endpoint: Endpoint, space: str) -> None:
    """Raises NotAvailable where the package cannot be had; nothing is made then."""
    install = npm.read(npm.read_lock("message-db"), Settings.load())
    with connect(endpoint.url) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(space)))
    with connect(make_conninfo(endpoint.url, dbname=space)) as connection:  # its schema is not there yet
        connection.execute("set client_min_messages = warning")
        connection.execute(install)


def drop(endpoint: Endpoint, space: str) -> None:
    with connect(endpoint.url) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(space)))


def open_store(endpoint: Endpoint, space: str) -> "MessageDbStore":
    return MessageDbStore(connect(_conninfo(endpoint, space)))


class MessageDbStore(Refusing):
    """An EventStore on one connection. Inside a transaction of the caller's, an append is a part of it."""

    name: ClassVar[str] = "message-db"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.EXPECTED_VERSION, Capability.TRANSACTION})
    rewrites: ClassVar[bool] = True  # `jsonb` keeps what the JSON says, and not its bytes

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        if "-" not in stream:
            raise StreamNameNotAllowed(stream, "without a hyphen it is a category, in message-db")
        rows = zip(events, encoded, strict=True)
        before = [None if expected == ANY else expected - 1 + number for number in range(len(events))]
        values = [
            (event.id, stream, event.type, data.decode(), wrap(event, metadata).decode(), version)
            for (event, (data, metadata)), version in zip(rows, before, strict=True)
        ]
        try:
            return self._write(values) + 1
        except RaiseException:
            if expected == ANY:
                raise
            return settled(self, stream, events, expected, lambda: self._version(stream))

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        if backwards:
            raise NotSupported(self.name, Capability.BACKWARDS)
        return iter(self._fetch(READ, [stream, after, -1 if limit is None else limit]))

    def read_category(self, category: str, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        """The next events of the category's streams, in the order in which they were committed."""
        return self._fetch(READ_CATEGORY, [category, after[1] + 1, limit])

    def close(self) -> None:
        self.connection.close()

    def _write(self, values: list[tuple[Any, ...]]) -> int:
        """One call for each event, sent together and committed together; returns the position of the last, from 0."""
        cursor = self.connection.cursor()
        if len(values) == 1 and self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            return _position(cursor.execute(WRITE, values[0], prepare=True))
        with self.connection.transaction():
            cursor.executemany(WRITE, values, returning=True)
            while cursor.nextset():
                continue
            return _position(cursor)

    def _version(self, stream: str) -> int:
        row = self.connection.execute("select stream_version(%s)", [stream]).fetchone()
        return 0 if row is None or row[0] is None else int(row[0]) + 1

    def _fetch(self, query: str, values: list[Any]) -> list[Recorded]:
        return [_recorded(row) for row in self.connection.execute(query, values, prepare=True)]


def _position(cursor: psycopg.Cursor[tuple[Any, ...]]) -> int:
    [(position,)] = cursor.fetchall()
    return int(position)


def _recorded(row: tuple[Any, ...]) -> Recorded:
    stream, version, type_, data, envelope, ident, position, time = row
    (schema, metadata), at = unwrap((envelope or "{}").encode()), time.replace(tzinfo=UTC)
    return Recorded(stream, version, type_, schema, (data or "").encode(), metadata, ident, 0, position, at)


def _conninfo(endpoint: Endpoint, space: str) -> str:
    return in_schema(make_conninfo(endpoint.url, dbname=space), "message_store")
