"""Workers of our orchestrator and hosts of services as processes that can be told to stop, killed, and followed."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from confluent_kafka import Message

from saga.messaging import Header, Outgoing, Topics, header
from saga.orchestrator.definition import Definition
from saga.orchestrator.office import Client, Office
from saga.orchestrator.shares import Shares
from saga.orchestrator.store import Store
from saga.orchestrator.worker import Orchestrator
from saga.order import SERVICE, Order, Request
from saga.services.host import MOST, Host, unseen
from saga.services.shop import SERVICES, Shop
from saga.stage.killing import RecordedKill, hook
from saga.transport import Inlet, Outlet, Place, offsets
from saga.wrong.orchestrating import MemoryStore
from shared import kafka
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.worker import until_told


class RecordedInlet(Inlet):
    """An inlet that writes down what is delivered, where there is a history."""

    def __init__(
        self,
        recorder: Recorder | None,
        broker: Endpoint,
        topics: Iterable[str],
        start: Mapping[Place, int],
        share: int = 0,
        sharers: int = 1,
    ) -> None:
        super().__init__(broker, topics, start, share, sharers)
        self.recorder = recorder

    def read(self, seconds: float, most: int = MOST) -> list[Message]:
        messages = super().read(seconds, most)
        if self.recorder:
            self.recorder.add(*(_delivery(self.recorder, message) for message in messages))
        return messages


class RecordedOutlet(Outlet):
    """An outlet that writes down what is promised, and what is sent, where there is a history."""

    def __init__(
        self, recorder: Recorder | None, broker: Endpoint, settings: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        super().__init__(broker, settings)
        self.recorder = recorder

    def promise(self, messages: Sequence[Outgoing]) -> None:
        self._note(messages, Outcome.INVOKE)

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._note(messages, Outcome.OK)  # what is sent is committed
        super().send(messages)

    def _note(self, messages: Sequence[Outgoing], outcome: Outcome) -> None:
        if self.recorder:
            at, me = now(), self.recorder.process
            self.recorder.add(
                *(Op(at, me, Action.WRITE, outcome, one.id, one.saga, topic=one.topic) for one in messages)
            )


def _delivery(recorder: Recorder, message: Message) -> Op:
    ident, saga = header(message, Header.ID), header(message, Header.CORRELATION)
    place = (message.topic() or "", message.partition() or 0, kafka.position(message)[1] - 1)
    return Op(now(), recorder.process, Action.DELIVER, Outcome.OK, ident, saga, 0, *place)


def host(
    shop: Shop,
    topics: Topics,
    broker: Endpoint,
    services: Sequence[str] = SERVICES,
    kill: RecordedKill | None = None,
    history: Path | None = None,
    most: int = MOST,
    kind: type[Host] = Host,
) -> None:
    """A process: hosts these services of the shop until SIGTERM or until killed; writes a history if it has one.

    With `most` 1, every command has a commit of its own.
    """
    stop = until_told()
    with ExitStack() as things:
        recorder = things.enter_context(Recorder(history, " and ".join(services))) if history else None
        opened = things.enter_context(replace(shop, conninfos={name: shop.conninfos[name] for name in services}).open())
        start = {place: at for connection in opened.connections.values() for place, at in offsets(connection).items()}
        inlet = RecordedInlet(recorder, broker, [topics.commands[name] for name in services], start)
        things.callback(inlet.close)
        at = things.enter_context(hook(kill))

        done = partial(note_effects, recorder) if recorder else unseen
        kind(opened, inlet, RecordedOutlet(recorder, broker), at, done, most).run(stop)


def note_effects(recorder: Recorder, requests: Sequence[Request]) -> None:
    """What a host has done."""
    for request in requests:
        recorder.record(Action.EFFECT, Outcome.OK, request.id, key=request.saga, group=SERVICE[request.action])


def work(
    office: Office,
    number: int = 0,
    kill: RecordedKill | None = None,
    history: Path | None = None,
    kind: type[Orchestrator] = Orchestrator,
) -> None:
    """A process: worker `number`, from 0, of the office, until SIGTERM or killed; writes a history if it has one."""
    stop = until_told()
    with ExitStack() as things:
        recorder = things.enter_context(Recorder(history, f"worker-{number}")) if history else None
        store = Store(things.enter_context(connect(office.conninfo)), number)
        inlet = RecordedInlet(recorder, office.broker, [office.topics.replies], store.offsets(), number, office.workers)
        things.callback(inlet.close)
        at = things.enter_context(hook(kill))
        outlet, shares = RecordedOutlet(recorder, office.broker), Shares(store, inlet, number)
        kind(store, inlet, outlet, office.topics, at, shares).run(stop)


def work_in_memory(
    office: Office,
    definition: Definition,
    orders: Sequence[Order],
    kill: RecordedKill | None,
    history: Path,
    kind: type[MemoryStore],
) -> None:
    """A process: a worker whose sagas are in its memory. It begins them itself; nobody else could."""
    stop = until_told()
    with ExitStack() as things:
        recorder = things.enter_context(Recorder(history, "worker-0"))
        store = kind(definition)
        # From the first reply on: those to a worker that was here before mean nothing to this one.
        inlet = RecordedInlet(recorder, office.broker, [office.topics.replies], {})
        things.callback(inlet.close)
        outlet = RecordedOutlet(recorder, office.broker)
        client = Client(store, outlet, office.topics, definition)
        for order in orders:
            client.start(order)
        outlet.flush()
        Orchestrator(store, inlet, outlet, office.topics, things.enter_context(hook(kill))).run(stop)
