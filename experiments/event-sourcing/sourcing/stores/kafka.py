"""Kafka as an event store, as it is often proposed: a topic, the stream's name as key, and one partition for an order.

What it lacks is what a store of aggregates needs first. The broker checks no version per key, so nobody can append
"only if nothing has happened since". It finds records by offset and not by key: reading one stream reads the partition.
And it does not number by key: versions are counted by whoever reads from the beginning; `read_all` says 0.
An acknowledged record is in the memory of the brokers that are in sync, and on their disks some time later.
And a committed transaction can be read a moment after its commit has returned, when its markers are in the partitions
(KIP-98, 5.2, WriteTxnMarkerRequest): a handle waits for its own, when it reads and when it is closed.
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from shared import kafka
from shared.errors import DeadlineExceeded
from shared.servers.server import Endpoint
from sourcing.errors import NotSupported
from sourcing.event import START, NewEvent, Position, Recorded
from sourcing.store import ANY, Capability
from sourcing.stores.adapting import Refusing, number_of, prepared, text_of, time_of

PATIENCE = 30.0  # seconds for an acknowledgement
TOGETHER = 5_000  # records taken from the client at once
# Nothing waits for company: an append is acknowledged before the next. The limit is the broker's own default.
PRODUCER = {"linger_ms": 0, "message_max_bytes": 1_048_588}
CONSUMER = {"group.id": "lab-sourcing", "enable.partition.eof": True, "isolation.level": "read_committed"}


def create(endpoint: Endpoint, space: str) -> None:
    kafka.create_topics(endpoint, [space], partitions=1)


def drop(endpoint: Endpoint, space: str) -> None:
    kafka.delete_topics(endpoint, space)


def open_store(endpoint: Endpoint, space: str) -> "KafkaStore":
    return KafkaStore(endpoint, space)


class KafkaStore(Refusing):
    """An EventStore on one topic with one partition. `append` returns 0: it does not learn the version."""

    name: ClassVar[str] = "Kafka"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.READ_ALL, Capability.SUBSCRIBE})

    def __init__(self, endpoint: Endpoint, topic: str) -> None:
        self.endpoint = endpoint
        self.topic = topic
        self.scanned = 0  # records that the last `read` went through
        self._consumer = self._consume(wait_ms=5)  # the broker is asked for what it has
        self._next: int | None = None  # the offset at which the consumer stands; None: at the end, or nowhere
        self._committed = 0  # the offset behind all that transactions of ours have committed
        self._producer: Producer | None = None
        self._transactional: Producer | None = None

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        if expected != ANY:
            raise NotSupported(self.name, Capability.EXPECTED_VERSION)
        events, encoded = prepared(stream, events)
        if len(events) == 1:
            self._producer = self._producer or self._connected(kafka.producer(self.endpoint, **PRODUCER))
            self._send(self._producer, stream, events[0], encoded[0])
        else:
            self._transactional = self._transactional or self._begin(f"{self.topic}-{uuid4()}")
            self._send_all(self._transactional, stream, events, encoded)
        return 0

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        if backwards:
            raise NotSupported(self.name, Capability.BACKWARDS)
        end = None if limit is None else after + limit
        return iter(list(islice(self._of(stream), after, end)))

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        return [_recorded(message) for message in islice(self._from(after[1]), limit)]

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        consumer = self._consume()
        try:
            consumer.assign([TopicPartition(self.topic, 0, after[1])])
            while not stop.is_set():
                # One is waited for; whatever else is there comes along. `consume` alone would wait for all of them.
                first = consumer.poll(0.05)
                batch = [first, *consumer.consume(TOGETHER, 0)] if first else []
                yield from map(_recorded, kafka.checked(m for m in batch if not kafka.at_end(m)))
        finally:
            consumer.close()

    def close(self) -> None:
        try:
            if self._committed:
                next(self._from(self._committed - 1))  # whoever is told that we are done can read what we have done
        finally:
            self._consumer.close()

    def _consume(self, wait_ms: int = 500) -> Consumer:
        settings = {"auto.offset.reset": "earliest", "fetch.wait.max.ms": wait_ms}
        return Consumer({**kafka.config(self.endpoint), **CONSUMER, **settings})

    def _of(self, stream: str) -> Iterator[Recorded]:
        """The stream's events, numbered as they come, out of all that the partition holds."""
        key, version, self.scanned = stream.encode(), 0, 0
        for message in self._from(0):
            self.scanned += 1
            if message.key() == key:
                version += 1
                yield _recorded(message)._replace(version=version)

    def _from(self, offset: int) -> Iterator[Message]:
        """Records from the offset to the end of what is committed now. Cheapest where the last call left off."""
        if offset != self._next:
            self._consumer.assign([TopicPartition(self.topic, 0, offset)])
        self._next = None
        while True:
            first = self._consumer.poll(PATIENCE)
            if first is None:
                raise DeadlineExceeded(f"{self.topic}: neither a record nor its end within {PATIENCE:.0f} s")
            if kafka.at_end(first):
                if kafka.position(first)[1] < self._committed:
                    continue  # the end comes again when the markers of our own transaction are there
                self._next = None  # it says so once: the next call has to ask anew
                self._consumer.unassign()
                return
            [message] = kafka.checked([first])
            self._next = kafka.position(message)[1]
            yield message

    @staticmethod
    def _connected(producer: Producer) -> Producer:
        producer.list_topics(timeout=PATIENCE)  # or the first record waits half a second for the client's next look
        return producer

    def _begin(self, identity: str) -> Producer:
        producer = kafka.producer(self.endpoint, **PRODUCER, transactional_id=identity)
        producer.init_transactions(PATIENCE)
        return producer

    def _send(self, producer: Producer, stream: str, event: NewEvent, encoded: tuple[bytes, bytes]) -> None:
        """Send it, and return when it is acknowledged. Raises KafkaException, and DeadlineExceeded."""
        failed: list[KafkaException] = []

        def note(error: object, message: Message) -> None:
            if error is not None:
                failed.append(KafkaException(error))

        self._produce(producer, stream, event, encoded, on_delivery=note)
        if producer.flush(PATIENCE):
            raise DeadlineExceeded(f"{self.topic}: not acknowledged within {PATIENCE:.0f} s, and perhaps written")
        if failed:
            raise failed[0]

    def _send_all(
        self, producer: Producer, stream: str, events: Sequence[NewEvent], encoded: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Send them in a transaction: readers of committed records see all or none. Raises KafkaException."""
        ends: list[int] = []

        def note(_: object, message: Message) -> None:
            ends.append(kafka.position(message)[1])

        producer.begin_transaction()
        try:
            for event, both in zip(events, encoded, strict=True):
                self._produce(producer, stream, event, both, on_delivery=note)
            producer.commit_transaction(PATIENCE)  # waits for their acknowledgements, and fails with them
            self._committed = max(ends)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                producer.abort_transaction(PATIENCE)
            raise

    def _produce(
        self, producer: Producer, stream: str, event: NewEvent, encoded: tuple[bytes, bytes], **how: Any
    ) -> None:
        data, metadata = encoded
        producer.produce(self.topic, data, stream, headers=_headers(event, metadata), **how)


def _headers(event: NewEvent, metadata: bytes) -> dict[str, str | bytes | None]:
    return {"type": event.type, "schema": str(event.schema_version), "id": event.id, "metadata": metadata}


def _recorded(message: Message) -> Recorded:
    head, stream, data = kafka.headers(message), text_of(kafka.key(message)), kafka.value(message) or b""
    type_, schema, ident = (text_of(head.get(name)) for name in ("type", "schema", "id"))
    metadata, place = head.get("metadata") or b"{}", (0, kafka.position(message)[1])
    at = time_of(message.timestamp()[1])
    return Recorded(stream, 0, type_, number_of(schema, 1), data, metadata, ident, *place, at)
