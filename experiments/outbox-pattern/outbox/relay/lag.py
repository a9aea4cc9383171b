"""How far a cursor relay is behind, as an operator asks: of the note that it keeps, without a look at what is done."""

from dataclasses import dataclass

from shared.postgres import Connection

# Where the window that is open was not read yet.
LEFT = "not coalesce(pg_visible_in_snapshot(xid, %(current)s) and position <= %(position)s, false)"
# Behind `passed`, and of the transactions that were open at the last window: what it has yet to read is nowhere else.
# As in reading.py, "published_at is null" hides the index by position where that of the transactions is to be taken.
READ = f"""
with waiting as (
    select created_at from outbox where position > %(passed)s and published_at is null
    and not pg_visible_in_snapshot(xid, %(previous)s) and {LEFT}
    union all
    select created_at from outbox where xid = any(%(listed)s::text::xid8[]) and position <= %(passed)s
    and coalesce(published_at, 'infinity') = 'infinity' and {LEFT}
)
select count(*), coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float from waiting
"""  # noqa: S608
NOTES = """
select relay, previous::text, current::text,
       case when pg_snapshot_xmax(previous) > outbox_xid('0') then passed else 0 end, position,
       array(select xip::text from pg_snapshot_xip(previous) as xip)
from outbox_checkpoint order by relay
"""


@dataclass(frozen=True)
class Lag:
    """Of one cursor relay, by its last note."""

    relay: str
    waiting: int  # committed events that it has not noted as published
    oldest: float  # seconds since the oldest of them was written; 0: none waits
    open: int  # transactions that were at work at its last window: it comes back for what they have written
    reading: bool  # whether it is in the middle of a window


def lags(connection: Connection) -> list[Lag]:
    """Every cursor relay that has a note, by name. Raises psycopg.Error where nobody has adopted the outbox here."""
    found = []
    for name, previous, current, passed, position, listed in connection.execute(NOTES).fetchall():
        values = {"previous": previous, "current": current, "passed": passed, "position": position}
        query = connection.execute(READ, {**values, "listed": f"{{{','.join(listed)}}}"})
        [(waiting, oldest)] = query.fetchall()
        found.append(Lag(name, waiting, max(0.0, oldest), len(listed), current is not None))
    return found
