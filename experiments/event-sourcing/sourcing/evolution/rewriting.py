"""Eager migration: every event, as it reads today, copied into the tables of a new store. The old ones stay.

Ids, metadata and times are kept; where events were split or dropped, versions move up, and `rewritten` notes which
event came from which. A batch, its origins and the checkpoint are one transaction: killed anywhere and started again,
it goes on where it was. It may run while the old store is written to; for the switch, stop the writers, call it once
more, `verify`, and let the new program read the new tables. Snapshots are not copied: their versions are not these.
"""

import uuid
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from shared import codec
from shared.errors import NotWritable
from shared.postgres import Connection, connect
from sourcing.errors import SchemaMismatch, SourcingError, VersionGap
from sourcing.event import TOMBSTONE, Data, Recorded
from sourcing.postgres import PostgresStore, script
from sourcing.repository import Reader, as_stored
from sourcing.upcasting import Upcasters
from sourcing.windows import Hook, nowhere

SCHEMA = Path(__file__).with_name("rewriting.sql")
NEXT = "select stream, max(version), max(first + number) from rewritten where stream = any(%s) group by stream"
WRITE = """
insert into events (stream, version, type, schema_version, id, data, metadata, recorded_at)
select stream, version, type, schema_version, id, data, metadata, recorded_at
from unnest(%s::text[], %s::bigint[], %s::text[], %s::int[], %s::uuid[], %s::bytea[], %s::bytea[], %s::timestamptz[])
     with ordinality as new (stream, version, type, schema_version, id, data, metadata, recorded_at, number)
order by number
"""
NOTE = """
insert into rewritten select * from unnest(%s::text[], %s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::int[])
"""
# Truncated there before a version; here before what that version has become.
TRUNCATE = """
insert into stream_metadata (stream, truncate_before, custom)
select stream, coalesce((select min(first) from rewritten where stream = there.stream and version >= before),
                        (select max(first + number) from rewritten where stream = there.stream), before), custom
from unnest(%s::text[], %s::bigint[], %s::bytea[]) as there (stream, before, custom)
on conflict (stream) do update set truncate_before = excluded.truncate_before, custom = excluded.custom
"""


class Window(StrEnum):
    """Where a rewriting can be killed."""

    BEFORE_COMMIT = "before the commit"
    AFTER_COMMIT = "after the commit"


class FoldDiffers(SourcingError):
    """A stream that does not read the same in both stores."""


class Copied(NamedTuple):
    """What one call of `rewrite` has done."""

    read: int = 0
    written: int = 0


def prepare(conninfo: str) -> None:
    """Make the tables of the new store, unless they are there."""
    with connect(conninfo) as connection:
        there = connection.execute("select to_regclass(quote_ident(current_schema) || '.rewriting')").fetchone()
        if there == (None,):
            with connection.transaction():
                connection.execute(script())
                connection.execute(SCHEMA.read_text())


def rewrite(
    source: PostgresStore, target: Connection, upcasters: Upcasters, batch: int = 1000, hook: Hook = nowhere
) -> Copied:
    """Copy all that is not copied yet. Raises as Upcasters do; the place is kept, add the step and call again."""
    done = Copied()
    while (copied := _batch(source, target, upcasters, batch, hook)).read:
        hook(Window.AFTER_COMMIT)
        done = Copied(done.read + copied.read, done.written + copied.written)
    _copy_metadata(source, target)
    return done


def verify(source: PostgresStore, target: PostgresStore, read: Reader) -> int:
    """Read every stream of both; returns how many. Raises FoldDiffers naming those that are not the same.

    Compared are the events as an aggregate gets them: the same events have the same fold.
    """
    streams = [stream for (stream,) in source.connection.execute("select distinct stream from events order by stream")]
    wrong = [stream for stream in streams if _events(source, stream, read) != _events(target, stream, as_stored)]
    if wrong:
        raise FoldDiffers(f"{len(wrong)} of {len(streams)} streams read differently, as {', '.join(wrong[:5])}")
    return len(streams)


def _events(store: PostgresStore, stream: str, read: Reader) -> list[tuple[str, Data]]:
    return list(chain.from_iterable(map(read, store.read(stream))))


def _batch(source: PostgresStore, target: Connection, upcasters: Upcasters, batch: int, hook: Hook) -> Copied:
    with target.transaction():
        # Locked: of two rewritings at once, one waits for the other, and then goes on behind it.
        place = target.execute("select xid, position from rewriting for update").fetchone() or (0, 0)
        page = source.read_all((place[0], place[1]), batch)
        if not page:
            return Copied()
        ends = {stream: (last, following) for stream, last, following in target.execute(NEXT, [_streams(page)])}
        written, noted = [], []
        for event in page:
            first = _first(event, ends)
            rows = list(_rewritten(event, first, upcasters))
            ends[event.stream] = event.version, first + len(rows)
            written += rows
            noted.append((*event[:4], first, len(rows)))
        if written:
            target.execute(WRITE, _columns(written), prepare=True)
        target.execute(NOTE, _columns(noted), prepare=True)
        target.execute("update rewriting set xid = %s, position = %s", page[-1].place)
        hook(Window.BEFORE_COMMIT)
    return Copied(len(page), len(written))


def _first(event: Recorded, ends: dict[str, tuple[int, int]]) -> int:
    """The version here of what this event becomes. A stream whose past was scavenged begins where it does there."""
    last, following = ends.get(event.stream, (event.version - 1, event.version))
    if event.version != last + 1:
        raise VersionGap(*event[:3], f"in the order of all events it comes after version {last}")
    return following


def _rewritten(event: Recorded, first: int, upcasters: Upcasters) -> Iterator[tuple[Any, ...]]:
    """Its rows: what is current goes over byte for byte; of several, the first one keeps the id."""
    kept = event.metadata, event.recorded_at
    if event.type == TOMBSTONE or upcasters.is_current(event):
        yield event.stream, first, event.type, event.schema_version, event.id, event.data, *kept
        return
    for number, (type_, data) in enumerate(upcasters(event)):
        ident = event.id if number == 0 else str(uuid.uuid5(uuid.UUID(event.id), str(number)))
        yield event.stream, first + number, type_, upcasters.current[type_], ident, _encoded(event, data), *kept


def _encoded(event: Recorded, data: Data) -> bytes:
    try:
        return codec.encode(data)
    except NotWritable as error:
        raise SchemaMismatch(*event[:3], f"what its steps made of it cannot be written: {error}") from error


def _copy_metadata(source: PostgresStore, target: Connection) -> None:
    rows = source.connection.execute("select stream, truncate_before, custom from stream_metadata").fetchall()
    if rows:
        target.execute(TRUNCATE, _columns(rows))


def _streams(page: Any) -> list[str]:
    return list({event.stream for event in page})


def _columns(rows: list[Any]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
