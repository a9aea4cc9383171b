"""WRONG: what comes next is what has a higher position. Positions are drawn in the order of inserts, not of commits."""

from collections.abc import Sequence

from shared.postgres import Connection
from sourcing.event import Position, Recorded
from sourcing.postgres import COLUMNS

OLDER = "and xid < events_xid(pg_snapshot_xmin(pg_current_snapshot()))"


def by_position(
    connection: Connection, after: Position, limit: int, behind: str = ""
) -> tuple[Sequence[Recorded], Position]:
    """WRONG, as tutorials have it: the next events and the place behind them; `behind` is what the half-fix adds."""
    page = f"select {COLUMNS} from events where position > %s {behind} order by position limit %s"  # noqa: S608
    rows = connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
    events = rows.execute(page, [after[1], limit], prepare=True).fetchall()
    return events, events[-1].place if events else after


def behind_open_transactions(
    connection: Connection, after: Position, limit: int
) -> tuple[Sequence[Recorded], Position]:
    """WRONG, the half-fix: it waits for older transactions, but positions are not drawn in the order of xids."""
    return by_position(connection, after, limit, OLDER)
