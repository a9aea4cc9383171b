"""All events by snapshot windows: for readers that must not see an effect before its cause, in whatever stream.

`read_all` cannot promise that. A transaction has its xid from its first write on; an event that it appends later may
follow from one that a newer transaction has committed meanwhile, and (xid, position) puts it before that one.

A window is what the current snapshot sees and the previous one did not, in the order of positions. Who appends an
effect has seen its cause committed, so the cause has the lower position in the same window, or it lies in one before
(positions are drawn one by one: an identity with CACHE 1, the default). Nothing is missed: a transaction that was open
in the previous snapshot is listed there, a later one is above it. Nothing comes twice: what the previous one saw is
neither. And nobody waits for a long transaction; it stays in the list.

The price: two readers may get unrelated events in different orders, and a checkpoint is a `Place`, no pair of numbers.
A window is sorted for each of its pages: to read a long past, take large pages or an index on `position`.

Sources: PgQ, whose batches are what became visible between two ticks; PostgreSQL documentation, "Transaction ID and
Snapshot Information Functions".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared import home
from shared.postgres import Connection
from shared.snapshot import NOTHING, Snapshot
from sourcing.event import Recorded
from sourcing.postgres import COLUMNS, COMMAND, TABLE

READ_WINDOW = f"""
select {COLUMNS} from events
where (xid = any(%s::text[]::xid8[]) or xid >= %s::bigint::text::xid8) and pg_visible_in_snapshot(xid, %s::pg_snapshot)
  and position > %s
order by position limit %s
"""  # noqa: S608


@dataclass(frozen=True)
class Place:
    """How far a reader has come. To keep it, write down all three (a snapshot as its text)."""

    previous: Snapshot = NOTHING  # what it sees was read
    current: Snapshot | None = None  # of the window that is open
    position: int = 0  # in that window


BEGIN = Place()  # before the first event


def read_window(connection: Connection, place: Place = BEGIN, limit: int = 1000) -> tuple[Sequence[Recorded], Place]:
    """The next events, and the place behind them. No events: there is nothing yet; go on from the new place later.

    The session is in no transaction. Raises NotAdopted. A place that is kept elsewhere may be ahead of a store that was
    restored: see ADR 0003, "When the events move".
    """
    events: Sequence[Recorded] = []
    if place.current:
        events, place = _page(connection, place.previous, place.current, place.position, limit)
    if not events:
        events, place = _page(connection, place.previous, home.snapshot(connection, TABLE, COMMAND), 0, limit)
    return events, place


def _page(
    connection: Connection, previous: Snapshot, current: Snapshot, position: int, limit: int
) -> tuple[Sequence[Recorded], Place]:
    """The next events of a window. Fewer than the limit: it is at its end."""
    rows = connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
    values = [list(map(str, current.ended_since(previous))), previous.xmax, str(current), position, limit]
    # Not prepared: a plan that does not know the window would go through the whole table.
    events = rows.execute(READ_WINDOW, values, prepare=False).fetchall()
    if len(events) < limit:
        return events, Place(current)
    return events, Place(previous, current, events[-1].position)
