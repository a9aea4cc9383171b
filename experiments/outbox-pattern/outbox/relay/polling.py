"""The polling publisher: poll the outbox, publish, mark as published.

Publishing comes before marking, and the mark is committed only when the broker has acknowledged the whole batch: a
crash anywhere leaves events unmarked, never unpublished. What was published and not yet marked is published again:
at-least-once.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from outbox.parking import park
from outbox.relay.message import COLUMNS, OutboxRow
from outbox.relay.publisher import Publisher, attempt
from outbox.windows import Hook, RelayWindow, nowhere
from shared.postgres import READ_COMMITTED, Connection, settle

# FOR UPDATE: a second relay waits rather than publish the same rows again.
POLL = f"select {COLUMNS} from outbox where published_at is null order by position limit %s for update"  # noqa: S608
MARK = "update outbox set published_at = clock_timestamp() where position = any(%s) and published_at is null"


@dataclass
class PollingPublisher:
    """Moves events to the topics that their aggregate types name. A second one may wait in reserve."""

    connection: Connection
    publisher: Publisher
    batch: int = 500
    interval: float = 0.05  # seconds between polls of an empty outbox
    at: Hook = nowhere

    def __post_init__(self) -> None:
        settle(self.connection, **READ_COMMITTED)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if attempt(self.step, stop) < self.batch:
                stop.wait(self.interval)

    def close(self) -> None:
        """Leave the broker; between two steps it holds nothing else."""
        self.publisher.close()

    def step(self) -> int:
        """Move one batch. Raises KafkaException when the broker could not be reached; nothing is marked then."""
        with self.connection.transaction():
            rows = self._poll()
            if rows:
                self.at(RelayWindow.AFTER_READ)
                self._publish(rows)
                self.at(RelayWindow.AFTER_PUBLISH)
                self._mark(rows)
                self.at(RelayWindow.AFTER_MARK)
        if rows:
            self.at(RelayWindow.AFTER_COMMIT)
        return len(rows)

    def _poll(self) -> list[OutboxRow]:
        return [OutboxRow._make(row) for row in self.connection.execute(POLL, [self.batch], binary=True)]

    def _publish(self, rows: Sequence[OutboxRow]) -> None:
        self.publisher.send(rows)
        self.publisher.flush()

    def _mark(self, rows: Sequence[OutboxRow]) -> None:
        """Parked rows are marked too: they are dealt with, elsewhere."""
        park(self.connection, self.publisher.take_refused())
        self.connection.execute(MARK, [[row.position for row in rows]])
