"""How one event is placed into a topic: by which client, under which key."""

from collections.abc import Callable, Iterable

from confluent_kafka import Message, Producer

from shared import kafka
from shared.event import Event

# How one event is published: which producer, which key.
Placing = Callable[[Producer, Producer, Event], tuple[Producer, bytes | None]]


def without_key(default: Producer, ours: Producer, event: Event) -> tuple[Producer, bytes | None]:
    """WRONG: any partition will do, and does."""
    return ours, None


def by_turns(default: Producer, ours: Producer, event: Event) -> tuple[Producer, bytes | None]:
    """WRONG: two services with two clients write the events of one order, with one key and two rules."""
    return (ours if event.sequence % 2 else default), event.subject.encode()


def by_key(default: Producer, ours: Producer, event: Event) -> tuple[Producer, bytes | None]:
    """RIGHT: one key and one rule."""
    return ours, event.subject.encode()


def partitions(producer: Producer, topic: str, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Where a producer puts each key, as the broker acknowledges it."""
    found: dict[bytes, int] = {}

    def delivered(error: object, message: Message) -> None:
        if error is None:
            found[kafka.key(message) or b""] = message.partition() or 0

    for key in keys:
        producer.produce(topic, b"{}", key, on_delivery=delivered)
    producer.flush()
    return found
