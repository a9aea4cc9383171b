"""What a projection cannot handle is parked with its reason, whole, and the projection goes on.

Events of one stream build on each other: behind a parked one the rest of its stream is parked too, so that a retry
finds them in their order. Other streams do not wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from shared.postgres import Connection
from sourcing.event import Recorded

PARK = """
insert into parked_events
select %s, stream, version, type, schema_version, id, data, metadata, xid, position, recorded_at, reason
from events join unnest(%s::text[], %s::bigint[], %s::text[]) as refused (stream, version, reason)
using (stream, version)
on conflict (projection, stream, version)
do update set reason = excluded.reason, attempts = parked_events.attempts + 1
"""
WAITING = """
select stream, version, type, schema_version, data, metadata, id::text as id_text, xid::text::bigint as xid_number,
       position, recorded_at
from parked_events where projection = %s and stream = %s order by version
"""


@dataclass(frozen=True)
class Parked:
    """A parked event, as an operator wants to see it."""

    projection: str
    stream: str
    version: int
    type: str
    size: int  # of data and metadata, in bytes
    reason: str
    attempts: int
    parked_at: datetime


def park(connection: Connection, projection: str, refused: Mapping[Recorded, str]) -> None:
    """Copy the events, each with its reason. What is parked already gets the new reason, and one attempt more."""
    if refused:
        streams, versions = [event.stream for event in refused], [event.version for event in refused]
        connection.execute(PARK, [projection, streams, versions, list(refused.values())])


def parked(connection: Connection, projection: str | None = None) -> list[Parked]:
    """All that is parked, of one projection or of all, in the order of the events."""
    query = """
    select projection, stream, version, type, length(data) + length(metadata), reason, attempts, parked_at
    from parked_events where coalesce(projection = %s, true) order by projection, xid, position
    """
    return [Parked(*row) for row in connection.execute(query, [projection])]


def held(connection: Connection, projection: str) -> dict[str, int]:
    """The streams that have something parked, with the version of their first parked event."""
    query = "select stream, min(version) from parked_events where projection = %s group by stream"
    return dict(connection.execute(query, [projection], prepare=True).fetchall())


def waiting(connection: Connection, projection: str, stream: str) -> list[Recorded]:
    """The parked events of a stream as they were stored, in their order."""
    rows = connection.cursor(binary=True).execute(WAITING, [projection, stream]).fetchall()
    return [Recorded._make(row) for row in rows]


def release(connection: Connection, projection: str, event: Recorded) -> None:
    """It is handled now."""
    query = "delete from parked_events where projection = %s and stream = %s and version = %s"
    connection.execute(query, [projection, event.stream, event.version])
