"""A service as a process, and the event with which a saga begins."""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from saga.choreography import store, wire
from saga.choreography.machine import SUBMITTED, Machine
from saga.choreography.service import Service
from saga.order import Order
from saga.stage.fates import KIND, Fates
from saga.transport import Inlet, offsets, reached
from saga.windows import Kill, hook
from shared import postgres
from shared.event import Event
from shared.history import Recorder
from shared.servers.server import Endpoint

WAIT = 0.05  # seconds until a service looks whether something is due, or whether it is to stop


@dataclass(frozen=True)
class Post:
    """Where a service works: with which machine, on which database and broker. `prefix` begins the topics."""

    machine: Machine
    conninfo: str
    broker: Endpoint
    prefix: str
    fates: Fates = KIND
    history: Path | None = None


def serve(post: Post, service: Callable[..., Service] = Service, kill: Kill | None = None) -> None:
    """A process: one service, until SIGTERM or until killed."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ExitStack() as things:
        connection = things.enter_context(postgres.connect(post.conninfo))
        recorder = things.enter_context(Recorder(post.history, post.machine.service)) if post.history else None
        at = things.enter_context(hook(kill))
        send = things.enter_context(wire.sending(post.broker))  # first: it connects while the inlet does
        topics, start = store.topics(post.prefix, post.machine.hears), offsets(connection)
        inlet = things.enter_context(closing(Inlet(post.broker, topics, start, settings=wire.READING)))
        working = service(post.machine, connection, send, post.prefix, post.fates, at, recorder)
        while not stop.is_set():
            messages = inlet.read(WAIT, wire.MOST)
            working.turn([wire.letter(message) for message in messages], reached(messages))


def submitted(order: Order, by_customer: bool = False) -> Event:
    """The event that begins the saga of an order. Its id is the order's own: a second click changes nothing.

    By customer is the wrong way: a customer may have several orders.
    """
    saga = order.customer if by_customer else order.id
    data, ident = msgspec.to_builtins(order), f"{order.id}/{SUBMITTED}"
    return Event(SUBMITTED, "/shop/checkout", order.id, data, ident, correlation_id=saga, partition_key=saga)
