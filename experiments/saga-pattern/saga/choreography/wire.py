"""Events to Kafka and from it: what the choreography has beside saga.transport."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from confluent_kafka import Consumer, Message, TopicPartition

from saga.choreography.service import Send
from saga.choreography.store import Envelope, Letter
from saga.transport import CONSUMER, Outlet, Place
from shared import kafka
from shared.servers.server import Endpoint

PARTITIONS = 2  # of every topic
MOST = 100  # letters of one transaction
PATIENCE = 30.0  # seconds that the broker has for an answer
# Not idempotent: half of such producers are ready only after half a second, and there is no need. What comes twice is
# handled once, and of one saga's events none is sent before its cause was heard, so none overtakes another.
PRODUCER = {"enable_idempotence": False}
# Half a second each, if nothing is said: that a fetch waits, meanwhile also for partitions that are not in it yet, and
# that a reader pauses who comes to a partition just before its leader is ready.
READING = {"fetch.wait.max.ms": 50, "fetch.error.backoff.ms": 50}


@contextmanager
def sending(broker: Endpoint) -> Iterator[Send]:
    """A function that sends events, and returns when the broker has them. It raises NotSent."""
    with closing(Outlet(broker, PRODUCER)) as outlet:

        def send(messages: Sequence[Envelope]) -> None:
            for one in messages:
                outlet.require(one.topic)  # what is sent before its topic is known may wait long
                outlet.put(one.topic, one.value, one.key, [*one.headers.items()])
            outlet.flush(PATIENCE)

        yield send


def letter(message: Message) -> Letter:
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    return Letter(place, kafka.key(message), kafka.value(message), kafka.headers(message))


def ends(broker: Endpoint, topics: Iterable[str]) -> dict[Place, int]:
    """How far the topics go now. 1 ms a topic; an admin client, as in shared.kafka, takes 23."""
    consumer = Consumer({**kafka.config(broker), **CONSUMER})
    try:
        places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
        return {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=PATIENCE)[1] for place in places}
    finally:
        consumer.close()
