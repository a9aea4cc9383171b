"""Events from Kafka and to it. A reader is assigned its partitions: no group, so nobody waits for a rebalance."""

from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from saga.choreography.service import Send
from saga.choreography.store import Letter, Outgoing, Partition
from shared import kafka
from shared.errors import LabError
from shared.servers.server import Endpoint

PARTITIONS = 2  # of every topic
MOST = 100  # letters of one transaction
PATIENCE = 30.0  # seconds that the broker has to take what is sent
# Not idempotent: half of such producers are ready only after half a second, and there is no need. What comes twice is
# handled once, and of one saga's events none is sent before its cause was heard, so none overtakes another.
PRODUCER = {
    "enable_idempotence": False,
    "linger_ms": 0,
    "socket_nagle_disable": True,
    "delivery_report_only_error": True,
}
CONSUMER = {"group.id": "unused", "socket.nagle.disable": True}


class NotSent(LabError):
    """The broker did not take an event."""


class Reader:
    """Reads topics from where `start` says on, else from their beginning. Not for several threads."""

    def __init__(self, broker: Endpoint, topics: Iterable[str], start: Mapping[Partition, int]) -> None:
        self._consumer = Consumer({**kafka.config(broker), **kafka.CONSUMER, **CONSUMER})
        places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
        self._consumer.assign([TopicPartition(*place, start.get(place, 0)) for place in places])

    def read(self, seconds: float) -> tuple[list[Letter], dict[Partition, int]]:
        """Wait so long for a first letter; returns it with those that are there, and how far topics are then read."""
        first = self._consumer.poll(seconds)
        if first is None:
            return [], {}
        # consume() would wait for its whole number or the time-out; poll() hands over the first at once.
        messages = list(kafka.checked([first, *self._consumer.consume(MOST - 1, timeout=0)]))
        reached = {
            (message.topic() or "", kafka.position(message)[0]): kafka.position(message)[1] for message in messages
        }
        return [_letter(message) for message in messages], reached

    def close(self) -> None:
        self._consumer.close()


def ends(broker: Endpoint, topics: Iterable[str]) -> dict[Partition, int]:
    """How far the topics go now."""
    consumer = Consumer({**kafka.config(broker), **CONSUMER})
    try:
        places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
        return {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=PATIENCE)[1] for place in places}
    finally:
        consumer.close()


def sender(broker: Endpoint) -> Send:
    """A function that sends events, and returns when the broker has them. It raises NotSent."""
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = kafka.producer(broker, on_delivery=delivered, **PRODUCER)
    producer.list_topics(timeout=PATIENCE)  # 50 ms; what is sent before the topics are known may wait longer

    def send(messages: Sequence[Outgoing]) -> None:
        for one in messages:
            producer.produce(one.topic, one.value, one.key, headers=list(one.headers.items()))
        left = producer.flush(PATIENCE)
        if left or failures:
            raise NotSent(f"{left or len(failures)} of {len(messages)} events were not taken: {failures[:1]}")

    return send


def _letter(message: Message) -> Letter:
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    return Letter(place, kafka.key(message), kafka.value(message), kafka.headers(message))


def _reached(message: Message) -> tuple[Partition, int]:
    number, after = kafka.position(message)
    return (message.topic() or "", number), after
