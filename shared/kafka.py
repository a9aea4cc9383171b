"""Thin helpers over confluent-kafka."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import MethodType
from typing import Any
from weakref import WeakMethod

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from shared.errors import DeadlineExceeded
from shared.servers.server import Endpoint
from shared.wait import until

# The murmur2 partitioner is Java's: every client, Debezium included, then puts a key into the same partition.
PRODUCER = {"acks": "all", "enable.idempotence": True, "linger.ms": 1, "partitioner": "murmur2_random"}
CONSUMER = {"auto.offset.reset": "earliest", "enable.auto.commit": False}
# What a client meets for some milliseconds while a partition's leader is new or moves.
NOT_YET = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._NOENT,  # "no leaders found"
}


def config(endpoint: Endpoint) -> dict[str, Any]:
    """What every client needs: address and credentials."""
    return {"bootstrap.servers": endpoint.url, "log_level": 4, **endpoint.options}


def producer(endpoint: Endpoint, **settings: Any) -> Producer:
    """A producer that loses and reorders nothing of itself. Settings in librdkafka's names with _ for dots.

    It is closed when its `with` block ends, or when nobody has it any more. A method that is its `on_delivery` does not
    keep its object alive: the two would hold each other, and complain of a broker that was stopped long ago.
    """
    given = _dotted(settings)
    if isinstance(report := given.get("on_delivery"), MethodType):
        given["on_delivery"] = _weakly(report)
    return Producer({**config(endpoint), **PRODUCER, **given})


@contextmanager
def consumer(endpoint: Endpoint, topics: Sequence[str], group: str, **settings: Any) -> Iterator[Consumer]:
    """A subscribed consumer, closed at the end. It commits nothing by itself."""
    client = Consumer({**config(endpoint), **CONSUMER, "group.id": group, **_dotted(settings)})
    client.subscribe(list(topics))
    try:
        yield client
    finally:
        client.close()


def create_topics(endpoint: Endpoint, names: Iterable[str], partitions: int = 3) -> None:
    """Create topics, and return when their leaders answer. Raises KafkaException, DeadlineExceeded."""
    with AdminClient(config(endpoint)) as admin:
        created = admin.create_topics([NewTopic(name, partitions) for name in names])
        for future in created.values():
            _result(future)
        places = [TopicPartition(name, partition) for name in created for partition in range(partitions)]
        if places:
            until(f"the leaders of {', '.join(created)}", lambda: _ends(admin, places))


def delete_topics(endpoint: Endpoint, prefix: str) -> list[str]:
    """Delete the topics and consumer groups that begin with the prefix, which must not be empty."""
    if not prefix:
        raise ValueError("refusing to delete every topic")
    with AdminClient(config(endpoint)) as admin:
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
        for future in admin.delete_topics(names).values() if names else ():
            _result(future)
        listed = admin.list_consumer_groups(request_timeout=10).result().valid
        groups = [group.group_id for group in listed if group.group_id.startswith(prefix)]
        for future in admin.delete_consumer_groups(groups).values() if groups else ():
            future.exception(30)  # a group whose member has not left yet goes by itself when its offsets expire
    return names


def end_offsets(endpoint: Endpoint, topic: str) -> dict[int, int]:
    """Partition -> offset after its last record, for every partition of the topic.

    Raises KafkaException, DeadlineExceeded.
    """
    with AdminClient(config(endpoint)) as admin:
        found = admin.list_topics(topic, timeout=10).topics[topic]
        if found.error:
            raise KafkaException(found.error)
        places = [TopicPartition(topic, partition) for partition in found.partitions]
        return until(f"the leaders of {topic}", lambda: _ends(admin, places))


def read_all(endpoint: Endpoint, topic: str, seconds: float = 30.0) -> list[Message]:
    """Every record that the topic holds now, partition after partition. Raises KafkaException, DeadlineExceeded."""
    # The end is announced, not counted: transaction markers and compaction take offsets that hold no record.
    client = Consumer({**config(endpoint), **CONSUMER, "group.id": "lab-read-all", "enable.partition.eof": True})
    try:
        left = {partition: end for partition, end in end_offsets(endpoint, topic).items() if end}
        client.assign([TopicPartition(topic, partition, 0) for partition in left])
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        while left:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"read {len(messages)} records of {topic}, not yet up to {left}")
            for message in client.consume(10_000, timeout=0.1):
                partition, reached = position(message)
                if reached >= left.get(partition, reached + 1):
                    del left[partition]
                if not at_end(message):
                    messages.extend(checked([message]))
        return sorted(messages, key=position)
    finally:
        client.close()


def checked(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages. Raises KafkaException at one that is an error."""
    for message in messages:
        if error := message.error():
            raise KafkaException(error)
        yield message


def at_end(message: Message) -> bool:
    """Whether this is no record but the news that the partition has no more (`enable.partition.eof`)."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def position(message: Message) -> tuple[int, int]:
    """The partition, and the offset up to which it is read with this message."""
    offset = message.offset()
    after = -1 if offset is None else offset if at_end(message) else offset + 1
    return message.partition() or 0, after


def headers(message: Message) -> dict[str, bytes]:
    """A message's headers by name; of several with one name the last, and none without a value."""
    return {name: value for name, value in header_pairs(message) if isinstance(value, bytes)}


def header_pairs(message: Message) -> list[tuple[str, str | bytes | None]]:
    """All headers as they were sent."""
    listed = message.headers() or []
    return list(listed.items() if isinstance(listed, dict) else listed)


def key(message: Message) -> bytes | None:
    """A message's key; confluent-kafka's types allow text, which no deserializer of ours makes."""
    found = message.key()
    return found.encode() if isinstance(found, str) else found


def value(message: Message) -> bytes | None:
    """A message's value, likewise."""
    found = message.value()
    return found.encode() if isinstance(found, str) else found


def _ends(admin: AdminClient, places: Sequence[TopicPartition]) -> dict[int, int] | None:
    """None while a leader does not answer as one: the metadata names it a moment before it knows, and when it moves."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = admin.list_offsets(dict.fromkeys(places, latest), request_timeout=10)
    try:
        return {place.partition: _result(future).offset for place, future in asked.items()}
    except KafkaException as error:
        if error.args[0].code() in NOT_YET:
            return None
        raise


def _result(future: "Future[Any]") -> Any:
    """What an admin's request came to. Raises KafkaException, TimeoutError.

    The future's own exception, raised here, would hold the frames of all callers, and what they have, and be held by
    one of them: clients that nobody uses any more, until Python happens to look for cycles.
    """
    if error := future.exception(30):
        raise KafkaException(*error.args)
    return future.result()


def _weakly(method: MethodType) -> Callable[..., None]:
    held = WeakMethod(method)

    def call(*arguments: Any) -> None:
        if (found := held()) is not None:
            found(*arguments)

    return call


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name if name == "on_delivery" else name.replace("_", "."): value for name, value in settings.items()}
