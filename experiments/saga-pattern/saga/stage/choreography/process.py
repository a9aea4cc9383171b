"""A service as a process."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from saga.choreography import store, wire
from saga.choreography.machine import Machine
from saga.choreography.service import Service
from saga.services.shop import Shop
from saga.stage.killing import RecordedKill, hook
from saga.transport import Inlet, offsets, reached
from shared.event import Event
from shared.history import Action, Outcome, Recorder
from shared.servers.server import Endpoint
from shared.worker import until_told

WAIT = 0.05  # seconds until a service looks whether something is due, or whether it is to stop


@dataclass(frozen=True)
class Post:
    """Where a service works: with which machine, in which shop, by which broker. `prefix` begins the topics."""

    machine: Machine
    shop: Shop
    broker: Endpoint
    prefix: str
    history: Path | None = None


def serve(post: Post, service: Callable[..., Service] = Service, kill: RecordedKill | None = None) -> None:
    """A process: one service, until SIGTERM or until killed."""
    stop, name = until_told(), post.machine.service
    with ExitStack() as things:
        services = things.enter_context(replace(post.shop, conninfos={name: post.shop.conninfos[name]}).open())
        notes = Notes(things.enter_context(Recorder(post.history, name)), name) if post.history else None
        at = things.enter_context(hook(kill))
        send = things.enter_context(wire.sending(post.broker))  # first: it connects while the inlet does
        topics, start = store.topics(post.prefix, post.machine.hears), offsets(services.connections[name])
        inlet = things.enter_context(closing(Inlet(post.broker, topics, start, settings=wire.READING)))
        watched = {"saying": notes.saying, "done": notes.done} if notes else {}
        working = service(post.machine, services, send, post.prefix, at, **watched)
        while not stop.is_set():
            messages = inlet.read(WAIT, wire.MOST)
            working.turn([wire.letter(message) for message in messages], reached(messages))


@dataclass(frozen=True)
class Notes:
    """Writes down what a service says and does."""

    recorder: Recorder
    service: str

    def saying(self, heard: Event, said: Event) -> None:
        self.recorder.record(Action.WRITE, Outcome.INVOKE, said.id, key=said.correlation_id)

    def done(self, heard: Event, said: Event) -> None:
        self.recorder.record(Action.WRITE, Outcome.OK, said.id, key=said.correlation_id)
        self.recorder.record(Action.EFFECT, Outcome.OK, heard.id, key=said.correlation_id, group=self.service)
