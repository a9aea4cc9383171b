"""The cursor relay: read on from the last (xid, position), behind the oldest open transaction; delete nothing.

Positions come from a sequence, in the order of nextval, not of commit: a reader of `position > last` passes over a
transaction that commits late. Transaction ids alone do not help either, if rows are then read in the order of position.
The pair does: xid < pg_snapshot_xmin() holds only for transactions that have ended, so a page in the order of (xid,
position) can never get a row in its middle later. (PostgreSQL documentation, "Transaction ID and Snapshot Information
Functions".) The price: one long transaction anywhere in the database holds the relay back.
"""

import threading
from dataclasses import dataclass

from outbox.parking import park
from outbox.relay.message import COLUMNS, OutboxRow
from outbox.relay.publisher import Publisher
from outbox.windows import RelayWindow
from shared.faults import Hook, nowhere
from shared.postgres import Connection

PAGE = f"""
select {COLUMNS} from outbox
where (xid, position) > (%s::text::xid8, %s) and xid < pg_snapshot_xmin(pg_current_snapshot())
order by xid, position limit %s
"""  # noqa: S608
RESUME = "select xid::text, position from outbox_checkpoint where relay = %s for update"
BEGIN = "insert into outbox_checkpoint (relay, xid, position) values (%s, '0', 0) on conflict do nothing"
NOTE = "update outbox_checkpoint set xid = %s::text::xid8, position = %s where relay = %s"


@dataclass
class CursorRelay:
    """One process; its name is that of its checkpoint."""

    connection: Connection
    publisher: Publisher
    batch: int = 500  # rows per page
    interval: float = 0.01  # seconds between polls of an outbox without news
    at: Hook = nowhere
    name: str = "cursor"
    pages: int = 20  # pages between two checkpoints: 10,000 rows are in doubt at most

    def __post_init__(self) -> None:
        self.connection.execute(BEGIN, [self.name])
        row = self.connection.execute(RESUME, [self.name]).fetchone()
        self.xid, self.position = row if row else ("0", 0)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if self.step() < self.batch:
                stop.wait(self.interval)

    def step(self) -> int:
        """Move up to `pages` pages, then note how far. The broker takes one page while the next is read."""
        moved = 0
        for _ in range(self.pages):
            rows = self._page()
            if not rows:
                break
            self.at(RelayWindow.AFTER_READ)
            self.publisher.send(rows)
            self.position, self.xid = rows[-1].position, rows[-1].xid
            moved += len(rows)
            if len(rows) < self.batch:
                break
        if moved:
            self._checkpoint()
        return moved

    def _page(self) -> list[OutboxRow]:
        cursor = self.connection.execute(PAGE, [self.xid, self.position, self.batch], prepare=True, binary=True)
        return [OutboxRow._make(row) for row in cursor]

    def _checkpoint(self) -> None:
        self.publisher.flush()
        self.at(RelayWindow.AFTER_PUBLISH)
        with self.connection.transaction():
            park(self.connection, self.publisher.take_refused())
            self.connection.execute(NOTE, [self.xid, self.position, self.name])
            self.at(RelayWindow.AFTER_MARK)
        self.at(RelayWindow.AFTER_COMMIT)
