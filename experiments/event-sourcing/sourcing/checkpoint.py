"""How far each projection has read, and how far that is behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import CheckpointRefused
from shared.postgres import Connection
from sourcing.errors import SourcingError
from sourcing.event import START, Position, Recorded

SCHEMA = Path(__file__).with_name("projections.sql")

# Events that are committed count as lag too while an older open transaction still hides them from `read_all`.
LAG = """
select projection, version,
       (select count(*) from events where (events.xid, events.position) > (checkpoints.xid, checkpoints.position)),
       coalesce(extract(epoch from clock_timestamp() - (
           select recorded_at from events
           where (events.xid, events.position) > (checkpoints.xid, checkpoints.position)
           order by events.xid, events.position limit 1)), 0)::float8,
       (select count(*) from parked_events where parked_events.projection = checkpoints.projection)
from checkpoints order by projection
"""
# Whether a checkpoint's last event is still the one at its place, or was scavenged there. `at` is the checkpoint's row.
THERE = """
{at}.xid < events_xid(pg_snapshot_xmax(pg_current_snapshot())) and ({at}.last_id is null or coalesce(
    (select (id, xid, position) = ({at}.last_id, {at}.xid, {at}.position) from events
     where stream = {at}.last_stream and version = {at}.last_version),
    exists (select from events where stream = {at}.last_stream and type = '$deleted')
    or exists (select from stream_metadata where stream = {at}.last_stream and truncate_before > {at}.last_version)))
"""
REMEDY = "build it anew from the events that are there: lab sourcing rebuild {}"
ADVANCE = """
update checkpoints set xid = %s::bigint::text::xid8, position = %s, last_stream = %s, last_version = %s, last_id = %s,
                       updated_at = clock_timestamp()
where projection = %s
"""
INCLUDES = """
select (events.xid, events.position) <= (checkpoints.xid, checkpoints.position)
from events, checkpoints where stream = %s and events.version = %s and projection = %s
"""


class ProjectionReplaced(SourcingError):
    """The tables are of another version of the projection than this program, which must not write to them."""

    def __init__(self, projection: str, there: int, ours: int) -> None:
        message = f"projection {projection!r}: its tables are of version {there}, this program is of version {ours}"
        super().__init__(f"{message}; rebuild, or start the program that belongs to them")
        self.projection, self.there, self.ours = projection, there, ours


@dataclass(frozen=True)
class Lag:
    """How far a projection is behind the events that are committed."""

    projection: str
    version: int
    events: int
    seconds: float  # age of the oldest event that is not in it; 0 where there is none
    parked: int


def create(connection: Connection) -> None:
    """Create both tables in the first schema of the search path, unless they are there."""
    there = "select to_regclass(quote_ident(current_schema()) || '.checkpoints') is not null"
    if not (connection.execute(there).fetchone() or [False])[0]:
        connection.execute(SCHEMA.read_text())


def begin(connection: Connection, projection: str, version: int) -> Position:
    """Where the projection stands; at the start, if it never ran. Raises ProjectionReplaced and CheckpointRefused."""
    connection.execute(
        "insert into checkpoints (projection, version, xid, position) values (%s, %s, '0', 0) on conflict do nothing",
        [projection, version],
    )
    there = f"select {THERE.format(at='here')} from checkpoints as here where projection = %s"  # noqa: S608
    place = _place(connection, projection, version, "")
    if connection.execute(there, [projection]).fetchone() != (True,):
        raise CheckpointRefused(f"projection {projection!r}", REMEDY.format(projection))
    return place


def lock(connection: Connection, projection: str, version: int) -> Position:
    """The same, in the caller's transaction: nobody else writes to the read model until it ends."""
    return _place(connection, projection, version, "for update")


def advance(connection: Connection, projection: str, last: Recorded) -> None:
    """Note the last event that is in the read model, or parked."""
    connection.execute(ADVANCE, [*last.place, last.stream, last.version, last.id, projection], prepare=True)


def end(connection: Connection) -> Position:
    """The place of the last event that is committed, whether `read_all` gives it already or not."""
    query = "select xid::text::bigint, position from events order by xid desc, position desc limit 1"
    return connection.execute(query).fetchone() or START


def lag(connection: Connection) -> Sequence[Lag]:
    """Every projection that ever ran here, by name."""
    return [Lag(*row) for row in connection.execute(LAG)]


def includes(connection: Connection, projection: str, stream: str, version: int) -> bool:
    """Whether the read model has that event: what a reader waits for who wants to see his own write.

    False as well for an event that does not exist, and True for one that is parked.
    """
    row = connection.execute(INCLUDES, [stream, version, projection], prepare=True).fetchone()
    return bool(row and row[0])


def _place(connection: Connection, projection: str, version: int, how: str) -> Position:
    query = f"select version, xid::text::bigint, position from checkpoints where projection = %s {how}"  # noqa: S608
    row = connection.execute(query, [projection], prepare=True).fetchone()
    if row is None:
        raise SourcingError(f"projection {projection!r} has no checkpoint here")
    if row[0] != version:
        raise ProjectionReplaced(projection, row[0], version)
    return row[1], row[2]
