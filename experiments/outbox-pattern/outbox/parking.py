"""What cannot be published is parked with its reason, whole, and the relay goes on.

An operator sees it (`lab outbox parked`), and when the cause is gone publishes it again (`retry`) or drops it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.postgres import Connection

PARK = """
insert into outbox_parked select outbox.*, reason from outbox
join unnest(%s::bigint[], %s::text[]) as refused (refused_position, reason) on position = refused_position
where not exists (select from outbox_parked parked where parked.position = outbox.position)
order by position
"""
AGAIN = """
with back as (delete from outbox_parked where id = any(%s::uuid[]) returning *)
insert into outbox (aggregate_type, aggregate_id, payload, id, type, source, sequence, time,
                    correlation_id, causation_id, content_type, spec_version)
select aggregate_type, aggregate_id, payload, id, type, source, sequence, time,
       correlation_id, causation_id, content_type, spec_version from back order by position
"""


@dataclass(frozen=True)
class Parked:
    """A parked event, as an operator wants to see it."""

    id: str
    aggregate_type: str
    aggregate_id: str
    type: str
    size: int  # of the payload, in bytes
    reason: str
    parked_at: datetime


def park(connection: Connection, refused: Sequence[tuple[int, str]]) -> None:
    """Copy the rows at these positions into outbox_parked, each with its reason. Twice is as good as once."""
    if refused:
        positions, reasons = zip(*refused, strict=True)
        connection.execute(PARK, [list(positions), list(reasons)])


def parked(connection: Connection) -> list[Parked]:
    """All that is parked, oldest first."""
    query = """
    select id::text, aggregate_type, aggregate_id, type, length(payload), reason, parked_at
    from outbox_parked order by parked_at, position
    """
    return [Parked(*row) for row in connection.execute(query)]


def retry(connection: Connection, ids: Sequence[str]) -> int:
    """Put parked events back into the outbox, under their ids, at its end; returns how many."""
    return connection.execute(AGAIN, [list(ids)]).rowcount


def discard(connection: Connection, ids: Sequence[str]) -> int:
    """Delete parked events for good; returns how many."""
    return connection.execute("delete from outbox_parked where id = any(%s::uuid[])", [list(ids)]).rowcount
