"""Relays that delete what they have published, skipping rows that another relay holds.

The tutorial's queue in a table. Several may run at once, and that is what breaks the order of an aggregate: while one
relay holds its event 1, another takes event 2 past it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outbox.parking import park
from outbox.relay.message import COLUMNS, OutboxRow
from outbox.relay.polling import PollingPublisher

TAKE = f"""
select {COLUMNS} from outbox where published_at is null order by position limit %s for update skip locked
"""  # noqa: S608
DELETE = "delete from outbox where position = any(%s) and published_at is null"


class BatchDeleteRelay(PollingPublisher):
    """Takes a batch, publishes it, deletes it."""

    def _poll(self) -> list[OutboxRow]:
        return [OutboxRow._make(row) for row in self.connection.execute(TAKE, [self.batch], binary=True)]

    def _mark(self, rows: Sequence[OutboxRow]) -> None:
        park(self.connection, self.publisher.take_refused())
        self.connection.execute(DELETE, [[row.position for row in rows]])


@dataclass
class SkipLockedRelay(BatchDeleteRelay):
    """One row, one publication, one delete, one commit: an fsync and a round trip to the broker for every event."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.batch = 1
