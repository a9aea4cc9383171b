"""WRONG: mark, then publish."""

from outbox.relay.polling import PollingPublisher
from outbox.windows import RelayWindow


class MarkFirstPublisher(PollingPublisher):
    """WRONG: marks and commits, then publishes. A crash in between loses the batch for good: at-most-once."""

    def step(self) -> int:
        with self.connection.transaction():
            rows = self._poll()
            if rows:
                self.at(RelayWindow.AFTER_READ)
                self._mark(rows)
                self.at(RelayWindow.AFTER_MARK)
        if rows:
            self.at(RelayWindow.AFTER_COMMIT)
            self._publish(rows)
            self.at(RelayWindow.AFTER_PUBLISH)
        return len(rows)
