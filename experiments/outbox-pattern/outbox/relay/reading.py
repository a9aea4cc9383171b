"""Reading the outbox by snapshot windows: every row once, each after what caused it, and behind nobody's transaction.

A window is what the current snapshot sees and the previous one did not, in the order of positions. Nothing is missed: a
transaction that was open in the previous snapshot is listed there, and a later one is above it. Nothing comes twice:
what the previous one saw is neither. And an aggregate's order is kept: who writes its next event has seen the last one
committed, so a window with the later event has the earlier one, too, at a lower position, or one before has it. That
holds where the event is inserted when its writer has the aggregate's lock (see writer.py), and positions are drawn
one by one (an identity with CACHE 1, the default).

The order of (xid, position) is none of aggregates: a transaction has its id from its first write on, maybe long before
it has the lock (see wrong/). A long transaction stays in the list, and holds nobody back.

Sources: PgQ, whose batches are what became visible between two ticks; PostgreSQL documentation, "Transaction ID and
Snapshot Information Functions".
"""

import select
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from outbox.relay.message import COLUMNS, Row
from outbox.table import TABLE
from shared import home
from shared.postgres import Connection, settle
from shared.snapshot import NOTHING, Snapshot

WINDOW = """and pg_visible_in_snapshot(xid, $1::pg_snapshot) and not pg_visible_in_snapshot(xid, $2::pg_snapshot)
order by position limit $3::bigint"""
# All that is new lies above `passed`: a row below it was inserted before the previous snapshot was taken. If that one
# does not see it, its transaction was open then, and is listed (see home.snapshot). "published_at is null" is said in a
# way that hides the index by position: of a table that has just grown the planner would take it, and look at all of it.
LATE = f"""
select {COLUMNS} from outbox
where position > $4::bigint and position <= $5::bigint and xid = any($6::text::xid8[])
and coalesce(published_at, 'infinity') = 'infinity' {WINDOW}
""".encode()  # noqa: S608
NEW = f"""
select {COLUMNS} from outbox where position > greatest($4::bigint, $5::bigint) and published_at is null {WINDOW}
""".encode()  # noqa: S608
# The rows are wanted in the order of an index, the first of them soon. Of a table that has just grown the planner does
# not know it, and would sort all of it. One plan will do: planning takes longer than reading a few rows.
BY_INDEX = {"enable_seqscan": "off", "enable_bitmapscan": "off", "plan_cache_mode": "force_generic_plan"}
_numbers = count()  # of prepared statements: a session may have several readers, one after the other


@dataclass(frozen=True)
class Place:
    """How far a reader has come: the columns of outbox_checkpoint."""

    previous: Snapshot = NOTHING
    current: Snapshot | None = None
    passed: int = 0
    position: int = 0
    id: str | None = None

    def opened(self, now: Snapshot) -> "Place":
        """At the beginning of the next window."""
        return replace(self, current=now, position=0)

    def behind(self, row: Row) -> "Place":
        """In the same window, behind the row."""
        return replace(self, position=row[0], id=row[5])

    def closed(self) -> "Place":
        """At the end of the window."""
        previous = self.current or self.previous
        return replace(self, previous=previous, current=None, passed=max(self.passed, self.position))


FIRST_ROW = Place()


class Reader:
    """Reads on from its `place`, which moves with what it hands out. The session is its alone while it reads."""

    def __init__(self, connection: Connection, place: Place = FIRST_ROW, batch: int = 500) -> None:
        settle(connection, **BY_INDEX)
        self.connection = connection
        self.place = place
        self.batch = batch  # rows of a page
        self._rows = Transformer(connection)
        self._names = {query: self._prepare(query) for query in (LATE, NEW)}
        self._reading = False

    def pages(self, limit: int) -> Iterator[list[Row]]:
        """Pages of the window that is open, or of a new one, `limit` rows at most: fewer, and it is at its end.

        Postgres reads a page while the caller deals with the last. Raises NotAdopted.
        """
        if self.place.current is None:
            if (now := home.snapshot(self.connection, TABLE)) == self.place.previous:
                return
            self.place = self.place.opened(now)
        left = limit
        for query, values in self._queries():
            for rows in self._stream(query, values, left):
                left -= len(rows)
                self.place = self.place.behind(rows[-1])
                yield rows
        if left:
            self.place = self.place.closed()

    def abandon(self) -> None:
        """Receive the rest of what was asked for, and forget it."""
        while self._reading:
            self._receive()

    def _queries(self) -> Iterator[tuple[bytes, list[object]]]:
        """What lies far back comes first, where there can be such rows: all of it lies before all that is new."""
        place = self.place
        values: list[object] = [place.position, place.passed]
        ended = place.current.ended_since(place.previous) if place.current else []
        if ended and place.position < place.passed:
            yield LATE, [*values, f"{{{','.join(map(str, ended))}}}"]
        yield NEW, values

    def _stream(self, query: bytes, values: list[object], limit: int) -> Iterator[list[Row]]:
        if limit:
            values = [self.place.current, self.place.previous, limit, *values]
            as_text = [str(value).encode() for value in values]
            self.connection.pgconn.send_query_prepared(self._names[query], as_text, result_format=1)
            self.connection.pgconn.set_chunked_rows_mode(self.batch)
            self.connection.pgconn.flush()
            self._reading = True
        while self._reading:
            if rows := self._receive():
                yield rows

    def _prepare(self, query: bytes) -> bytes:
        """The name of the prepared statement. Raises psycopg.Error."""
        name = f"outbox_window_{next(_numbers)}".encode()
        result = self.connection.pgconn.prepare(name, query)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise error_from_result(result)
        return name

    def _receive(self) -> list[Row]:
        """The next page of the answer; empty at its end. Raises psycopg.Error."""
        stream = self.connection.pgconn
        while stream.is_busy():
            select.select([stream.socket], [], [])
            stream.consume_input()
        if (result := stream.get_result()) is None:
            self._reading = False
            return []
        if result.status not in (pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.TUPLES_OK):
            self.abandon()
            raise error_from_result(result)
        self._rows.set_pgresult(result)
        return self._rows.load_rows(0, result.ntuples, tuple)
