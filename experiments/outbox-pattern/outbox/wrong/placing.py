"""How one event is placed into a topic: by which client, under which key. Two wrong ways, and the right one."""

from collections.abc import Callable

from confluent_kafka import Producer

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
