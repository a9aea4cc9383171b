"""A snapshot: which transactions had ended at a moment, and which had not, as Postgres writes it.

Two of them are a window: what the later one sees and the earlier one did not. Reading a table window by window misses
nothing, repeats nothing and waits for nobody, as PgQ does with its batches. (PostgreSQL documentation, "Transaction ID
and Snapshot Information Functions".)
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Snapshot:
    """Transactions below `xmin` have ended, those from `xmax` on have not begun; between them the open ones are listed.

    The numbers may be those of a table that was moved (see home.sql) rather than the cluster's own.
    """

    xmin: int
    xmax: int
    open: tuple[int, ...] = ()  # ascending

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `xmin:xmax:xip,xip`, Postgres' text for a pg_snapshot. Raises ValueError."""
        xmin, xmax, listed = text.split(":")
        return cls(int(xmin), int(xmax), tuple(map(int, filter(None, listed.split(",")))))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.open))}"

    def sees(self, xid: int) -> bool:
        """Whether the transaction had ended: its rows are visible, unless it was rolled back."""
        place = bisect_left(self.open, xid)
        return xid < self.xmax and self.open[place : place + 1] != (xid,)

    def ended_since(self, earlier: "Snapshot") -> list[int]:
        """Those that were open in the earlier one, and have ended since: what they wrote may lie far back."""
        return [xid for xid in earlier.open if self.sees(xid)]


NOTHING = Snapshot(1, 1)  # what sees nothing: before the first transaction
