"""Rows to the broker: what every Python relay shares. Refused rows are told apart from a broker that is away."""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outbox.relay.message import OutboxRow, Row, headers, problem, text
from shared import kafka
from shared.history import Action, Op, Outcome, Recorder, now
from shared.servers.server import Endpoint

# The broker's word on the message itself: sending it again would not help.
PERMANENT = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
# 5 ms make large batches in a drain; flush() does not wait for them. Reports of failures only: a Python call for each
# message would cost as much as the message itself.
SETTINGS = {"linger_ms": 5, "delivery_report_only_error": True, "queue_buffering_max_kbytes": 262_144}
METADATA_AGE = 1.0  # seconds before a topic that did not exist is looked for again


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for cycles rarely while rows pass through.

    Every page is hundreds of new tuples and no cycle. Looking at them cost an eighth of the relay's CPU, and looking
    at all that the process has, now and then, stopped it for 40 to 100 ms.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Publisher:
    """Sends rows and waits for acknowledgements. `refused` gathers (position, reason) of rows that cannot be sent."""

    def __init__(self, endpoint: Endpoint, prefix: str = "", recorder: Recorder | None = None) -> None:
        self.prefix = prefix
        self.recorder = recorder
        self.refused: list[tuple[int, str]] = []
        self.waiting = 0  # rows handed over since the last flush
        self._sent: list[Sequence[Row]] = []
        self._failure: KafkaError | None = None
        self._producer: Producer = kafka.producer(endpoint, on_delivery=self._delivered, **SETTINGS)
        self._topics: set[str] = set()
        self._asked = -METADATA_AGE

    def send(self, rows: Sequence[Row]) -> None:
        """Hand rows to the producer, in order. Nothing is acknowledged before `flush`."""
        produce, topics, prefix = self._producer.produce, self._topics, self.prefix
        self._sent.append(rows)
        self.waiting += len(rows)
        for row in rows:
            topic = prefix + row[2]
            if topic not in topics and not self._exists(topic):
                self.refused.append((row[0], problem(row) or f"there is no topic {topic!r}"))
            elif reason := problem(row):
                self.refused.append((row[0], reason))
            else:
                try:
                    produce(topic, row[4], row[3], headers=headers(row))
                except BufferError:  # the queue is full: let the broker catch up
                    self._producer.flush()
                    produce(topic, row[4], row[3], headers=headers(row))
                except KafkaException as error:
                    self._fail(error.args[0], row[0])
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has everything that was sent. Raises KafkaException when it did not take some of it.

        Rows that it will never take are in `refused` then, and are no error.
        """
        self._producer.flush()
        if self._failure is not None:
            raise KafkaException(self._failure)
        self._record()
        self._sent.clear()
        self.waiting = 0

    def take_refused(self) -> list[tuple[int, str]]:
        """The refused rows, once: the caller parks them."""
        refused, self.refused = self.refused, []
        return refused

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error, self._position(kafka.headers(message).get("ce_id", b"").decode()))

    def _fail(self, error: KafkaError, position: int) -> None:
        if error.code() in PERMANENT and position:
            self.refused.append((position, f"the broker refuses it: {error.str()}"))
        else:
            self._failure = error

    def _position(self, ident: str) -> int:
        return next((row[0] for rows in self._sent for row in rows if text(row[5]) == ident), 0)

    def _exists(self, topic: str) -> bool:
        """Whether the topic exists. Unknown ones are asked for once a second, so that a new topic is found soon."""
        if time.monotonic() - self._asked > METADATA_AGE:
            self._topics.update(self._producer.list_topics(timeout=30).topics)
            self._asked = time.monotonic()
        return topic in self._topics

    def _record(self) -> None:
        if self.recorder:
            at, me, refused = now(), self.recorder.process, {position for position, _ in self.refused}
            for rows in self._sent:
                sent = (row for row in map(OutboxRow._make, rows) if row.position not in refused)
                self.recorder.add(*(_sent(row, at, me) for row in sent))


def _sent(row: OutboxRow, at: int, process: str) -> Op:
    return Op(at, process, Action.SEND, Outcome.OK, text(row.id), text(row.aggregate_id), int(row.sequence))
