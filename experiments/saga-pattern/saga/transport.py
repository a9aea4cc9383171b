"""Reading from Kafka and writing to it, for processes that keep their place in their database.

The place is written in the transaction of what is done with the messages. A reader is assigned its partitions and joins
no group: nothing is rebalanced, and whoever is started again reads on at once.
"""

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from saga.messaging import Outgoing, Unreadable
from saga.reading import without_nul
from shared import codec, kafka
from shared.errors import LabError, NotReadable
from shared.postgres import Connection
from shared.servers.server import Endpoint

OFFSETS = """
create table if not exists offsets (
    topic     text not null,
    partition int not null,
    next      bigint not null,       -- the first record that is not done with
    primary key (topic, partition)
);
"""
PARKED = """
create table if not exists parked_messages (
    position  bigint generated always as identity primary key,
    topic     text not null,
    partition int not null,
    "offset"  bigint not null,
    key       bytea,
    value     bytea,
    headers   bytea not null,        -- JSON: [[name, text, or {"base64": ...} where it is none, or null], ...]
    reason    text not null,
    parked_at timestamptz not null default clock_timestamp(),
    unique (topic, partition, "offset")   -- whoever reads it again does not park it again
);
"""
TABLES = OFFSETS + PARKED
# A reader that was thought dead and writes its place late must not move it back.
ADVANCE = """
insert into offsets select * from unnest(%s::text[], %s::int[], %s::bigint[])
on conflict (topic, partition) do update set next = greatest(offsets.next, excluded.next)
"""
PARK = """
insert into parked_messages (topic, partition, "offset", key, value, headers, reason)
values (%s, %s, %s, %s, %s, %s, %s) on conflict (topic, partition, "offset") do nothing
"""
# A saga that is alone waits for nobody: no lingering, no delayed packets.
PRODUCER = {"linger_ms": 0, "socket_nagle_disable": True, "delivery_report_only_error": True}
CONSUMER = {"group.id": "unused", "socket.nagle.disable": True}
INTERNAL = "__"  # what the broker's own topics begin with: they are there, and take nothing from us
MOST = 500  # messages of one transaction
Place = tuple[str, int]  # topic, partition
Headers = list[tuple[str, str | bytes | None]]
_headers = codec.decoder(list[tuple[str, str | dict[str, str] | None]])


class NotSent(LabError):
    """The broker did not take a message."""


def park(connection: Connection, message: Message, reason: str) -> None:
    """Keep a message that cannot be used, as it came, in the transaction that moves on from it."""
    listed = message.headers() or []
    headers = codec.encode(
        [[name, _written(value)] for name, value in (listed.items() if isinstance(listed, dict) else listed)]
    )
    place = [message.topic(), message.partition(), message.offset()]
    content = [kafka.key(message), kafka.value(message), headers, without_nul(reason)]
    connection.execute(PARK, [*place, *content])


def restored(headers: bytes) -> list[tuple[str, bytes | None]]:
    """The headers of a message that was put aside, as they came. Raises NotReadable."""
    return [(name, _bytes(value)) for name, value in _headers(headers)]


def _bytes(written: str | dict[str, str] | None) -> bytes | None:
    if isinstance(written, dict):
        return base64.b64decode(written["base64"])
    return None if written is None else written.encode()


def _written(header: str | bytes | None) -> str | dict[str, str] | None:
    """A header as JSON has it. Not every header is text."""
    if not isinstance(header, bytes):
        return header
    try:
        return codec.text(header)
    except NotReadable:
        return {"base64": base64.b64encode(header).decode()}


def advance(connection: Connection, places: Mapping[Place, int]) -> None:
    """Note how far partitions are read."""
    if places:
        topics, partitions = zip(*places, strict=True)
        connection.execute(ADVANCE, [list(topics), list(partitions), list(places.values())], prepare=True)


def offsets(connection: Connection) -> dict[Place, int]:
    """Where to read on."""
    rows = connection.execute("select topic, partition, next from offsets").fetchall()
    return {(topic, partition): following for topic, partition, following in rows}


def reached(messages: Iterable[Message]) -> dict[Place, int]:
    """How far partitions are read with these messages, which come in their order."""
    return {(message.topic() or "", kafka.position(message)[0]): kafka.position(message)[1] for message in messages}


class Inlet:
    """Reads topics from where `start` says on, else from their beginning. Not for several threads.

    Of `sharers` readers, number `share` (from 0) reads every so-many-th partition. `settings` are the consumer's.
    """

    def __init__(
        self,
        broker: Endpoint,
        topics: Iterable[str],
        start: Mapping[Place, int],
        share: int = 0,
        sharers: int = 1,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.sharers = sharers
        self._consumer = Consumer({**kafka.config(broker), **kafka.CONSUMER, **CONSUMER, **settings})
        self._all = list(self._places(topics))
        self.take({share}, start)

    def take(self, shares: Collection[int], start: Mapping[Place, int]) -> None:
        """From now on read these shares, from where `start` says on. What was read before has to be in it."""
        places = [place for place in self._all if place[1] % self.sharers in shares]
        self._consumer.assign([TopicPartition(*place, start.get(place, 0)) for place in places])

    def read(self, seconds: float, most: int = MOST) -> list[Message]:
        """Wait so long for a first message; returns it with those that are there already, `most` at once."""
        first = self._consumer.poll(seconds)
        if first is None:
            return []
        # consume() would wait for its whole number or the time-out; poll() hands over the first at once.
        return list(kafka.checked([first, *self._consumer.consume(most - 1, timeout=0)]))

    def close(self) -> None:
        self._consumer.close()

    def _places(self, topics: Iterable[str]) -> Iterator[Place]:
        for topic in topics:
            found = self._consumer.list_topics(topic, timeout=10).topics[topic]
            if found.error:
                raise KafkaException(found.error)
            yield from ((topic, partition) for partition in found.partitions)


class Outlet:
    """Sends messages, and says when the broker did not take one. `settings` are the producer's."""

    def __init__(self, broker: Endpoint, settings: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._failure: KafkaError | None = None
        self._topics: set[str] = set()
        self._producer: Producer = kafka.producer(broker, on_delivery=self._delivered, **{**PRODUCER, **settings})

    def promise(self, messages: Sequence[Outgoing]) -> None:
        """Told within a transaction what is sent when it is committed. It takes nothing here."""

    def require(self, topic: str) -> None:
        """Raises Unreadable when there is no such topic: who is told to answer there cannot."""
        if topic not in self._topics:
            if topic.startswith(INTERNAL) or "\0" in topic:
                raise Unreadable(f"answers to topic {topic!r} cannot be sent: it is the broker's own, or no topic")
            if error := self._producer.list_topics(topic, timeout=10).topics[topic].error:
                raise Unreadable(f"answers to topic {topic!r} cannot be sent: {error.str()}")
            self._topics.add(topic)

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Hand them to the producer, whose thread sends them at once. Raises NotSent about earlier ones."""
        for one in messages:
            self.put(one.topic, one.value, one.saga, one.headers)
        self.check()

    def put(self, topic: str, value: bytes | None, key: str | bytes | None, headers: Headers) -> None:
        """Hand one message to the producer. Whether the broker takes it is said by `check` and `flush`.

        Raises NotSent where there is no room for it, and does not come to be.
        """
        try:
            self._producer.produce(topic, value, key, headers=headers)
        except BufferError:  # the queue is full: let the broker catch up
            self.flush()
            self._producer.produce(topic, value, key, headers=headers)

    def check(self) -> None:
        """Raises NotSent when the broker did not take something."""
        self._producer.poll(0)
        if self._failure is not None:
            raise NotSent(f"the broker did not take a message: {self._failure.str()}")

    def flush(self, seconds: float = 30.0) -> None:
        """Return when the broker has all of them. Raises NotSent."""
        left = self._producer.flush(seconds)
        self.check()
        if left:
            raise NotSent(f"{left} messages are not with the broker after {seconds:g} s")

    def close(self) -> None:
        """Let go of the broker. What is not with it is not sent."""
        self._producer.purge()
        self._producer.close()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._failure = error or self._failure
