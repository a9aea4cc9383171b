"""A reader of whole topics that writes every delivery into the history, and says when it has seen everything."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition

from shared import kafka
from shared.errors import DeadlineExceeded, EventError
from shared.event import Event
from shared.history import Action, Op, Outcome, Recorder, now
from shared.servers.server import Endpoint
from shared.wait import until

READING = {"group.id": "lab-tap", "enable.partition.eof": True}  # the end of a partition is told, see kafka.read_all


class Tap:
    """Reads topics from their first record in a thread of its own, without a group: assigned, so at once.

    Every record becomes a `deliver` of the process `name`; one that is no event goes to `rejected`, with the reason.
    """

    def __init__(self, name: str, endpoint: Endpoint, topics: Sequence[str], recorder: Recorder) -> None:
        self.name = name
        self.endpoint = endpoint
        self.topics = tuple(topics)
        self.recorder = recorder
        self.events: list[Event] = []
        self.ids: set[str] = set()
        self.rejected: list[tuple[Message, EventError]] = []
        self.error: BaseException | None = None
        self._consumer = Consumer({**kafka.config(endpoint), **kafka.CONSUMER, **READING})
        self._seen: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "Tap":
        metadata = self._consumer.list_topics(timeout=10).topics
        places = [TopicPartition(topic, p, 0) for topic in self.topics for p in metadata[topic].partitions]
        self._consumer.assign(places)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        if self.error and kind is None:
            raise self.error

    def wait_for(self, count: int, seconds: float = 60.0) -> bool:
        """Wait until `count` different events have come; False when time is up: the checkers have the word."""
        try:
            until(f"{count} events at {self.name}", lambda: self.error or len(self.ids) >= count, seconds)
        except DeadlineExceeded:
            return False
        return len(self.ids) >= count

    def catch_up(self, seconds: float = 30.0) -> None:
        """Return when everything that the topics hold by now was read. Raises DeadlineExceeded."""
        for topic in self.topics:
            for partition, end in kafka.end_offsets(self.endpoint, topic).items():
                place = topic, partition
                until(f"{self.name} to read {topic}/{partition} up to {end}", self._reached(place, end), seconds)

    def _reached(self, place: tuple[str, int], end: int) -> Callable[[], bool]:
        return lambda: self.error is not None or self._seen.get(place, 0) >= end

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                # consume() waits for its whole number or the time-out: poll() hands over the first at once.
                first = self._consumer.poll(0.05)
                if first is not None:
                    for message in (first, *self._consumer.consume(500, timeout=0)):
                        self._take(message)
        except BaseException as error:
            self.error = error

    def _take(self, message: Message) -> None:
        if not kafka.at_end(message):
            for record in kafka.checked([message]):
                self._deliver(record)
        partition, reached = kafka.position(message)
        self._seen[message.topic() or "", partition] = reached

    def _deliver(self, message: Message) -> None:
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        event: Event | None = None
        try:
            event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
            op = Op(now(), self.name, Action.DELIVER, Outcome.OK, event.id, event.subject, event.sequence)
        except EventError as error:
            self.rejected.append((message, error))
            op = Op(now(), self.name, Action.DELIVER, Outcome.FAIL, note=str(error))
        self.recorder.add(msgspec.structs.replace(op, topic=topic, partition=partition, offset=offset))
        if event:  # counted when it is in the history, so that who waited for it finds it there
            self.events.append(event)
            self.ids.add(event.id)
