"""WRONG: what comes next is what has a higher position. Positions are drawn in the order of inserts, not of commits."""

from collections.abc import Sequence

from shared.postgres import Connection
from sourcing.event import START, Position, Recorded
from sourcing.postgres import COLUMNS

PAGE = 500


def by_position(
    connection: Connection, after: Position | None, behind: str = ""
) -> tuple[Sequence[Recorded], Position]:
    """WRONG, as tutorials have it; `behind` is what the half-fix adds."""
    _, position = after or START
    page = f"select {COLUMNS} from events where position > %s {behind} order by position limit %s"  # noqa: S608
    rows = connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
    events = rows.execute(page, [position, PAGE], prepare=True).fetchall()
    return events, events[-1].place if events else after or START
