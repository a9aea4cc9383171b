"""The polling publisher: poll the outbox, publish, mark as published.

Publishing comes before marking, and the mark is committed only when the broker has acknowledged the whole batch: a
crash anywhere leaves events unmarked, never unpublished. What was published and not yet marked is published again:
at-least-once.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outbox.relay.message import COLUMNS, OutboxRow
from outbox.windows import RelayWindow
from shared.faults import Hook, nowhere
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection

# FOR UPDATE: a second relay waits rather than publish the same rows again.
POLL = f"select {COLUMNS} from outbox where published_at is null order by position limit %s for update"  # noqa: S608
MARK = "update outbox set published_at = clock_timestamp() where position = any(%s)"


@dataclass
class PollingPublisher:
    """Moves events of aggregate type T to the topic `prefix` + T. One process; a second one may wait in reserve."""

    connection: Connection
    producer: Producer
    prefix: str = ""
    batch: int = 500
    interval: float = 0.05  # seconds between polls of an empty outbox
    at: Hook = nowhere
    recorder: Recorder | None = None

    def run(self, stop: threading.Event) -> None:
        """Relay until told to stop."""
        while not stop.is_set():
            if self.step() < self.batch:
                stop.wait(self.interval)

    def step(self) -> int:
        """Move one batch; returns how many events. Raises KafkaException when the broker refused one of them."""
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
        return [OutboxRow(*row) for row in self.connection.execute(POLL, [self.batch], binary=True)]

    def _mark(self, rows: Sequence[OutboxRow]) -> None:
        self.connection.execute(MARK, [[row.position for row in rows]])

    def _publish(self, rows: Sequence[OutboxRow]) -> None:
        """Send the rows and wait until the broker has them all."""
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                refused.append(error)

        for row in rows:
            topic = self.prefix + row.aggregate_type
            self.producer.produce(topic, row.payload, row.aggregate_id, headers=row.headers(), on_delivery=delivered)
            self.producer.poll(0)
        self.producer.flush()
        if refused:
            raise KafkaException(refused[0])
        self._record(rows)

    def _record(self, rows: Sequence[OutboxRow]) -> None:
        if self.recorder:
            at, me = now(), self.recorder.process
            ops = (Op(at, me, Action.SEND, Outcome.OK, str(r.id), r.aggregate_id, r.sequence) for r in rows)
            self.recorder.add(*ops)


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
