"""Where choreographies are played: services as processes, and a cast of them to kill and look after."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from saga.choreography import store, wire
from saga.choreography.machine import ENDS, MACHINES, SUBMITTED, Machine, Machines, emitter
from saga.choreography.service import Service, submitted
from saga.order import Order, World
from saga.services.shop import SERVICES, Shop
from saga.stage.fates import KIND, FatedShop, Fates
from saga.stage.fates import create as create_shop
from saga.stage.killing import RecordedKill, hook
from saga.transport import Inlet, Place, offsets, reached
from saga.windows import ServiceWindow
from shared import kafka, postgres
from shared.event import Event
from shared.history import Action, Outcome, Recorder
from shared.postgres import Connection, number
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker, until_told

BUSY = """
select exists (select from held where due is not null) or exists (select from outbox where sent_at is null)
"""
SAID = (
    "select convert_from(decode(convert_from(headers, 'UTF8')::jsonb ->> 'ce_id', 'base64'), 'UTF8'), key from outbox"
)


# The services as processes.


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


# The stage: databases, topics, machines; made, filled with orders, and looked at from outside.


@dataclass(frozen=True)
class Stage:
    """Can be sent to worker processes."""

    shop: FatedShop
    broker: Endpoint
    prefix: str  # of topics and schemas
    history: Path
    machines: Machines = MACHINES

    @property
    def topics(self) -> list[str]:
        """Of everybody who says something: the checkout, and every service."""
        names = (emitter(SUBMITTED), *(machine.service for machine in self.machines))
        return [f"{self.prefix}.{name}" for name in names]

    def machine(self, service: str) -> Machine:
        return next(machine for machine in self.machines if machine.service == service)

    def heard_by(self, machine: Machine) -> list[str]:
        """The topics that a service reads."""
        return store.topics(self.prefix, machine.hears)

    def post(self, service: str) -> Post:
        """Where a service of this stage works."""
        return Post(self.machine(service), self.shop, self.broker, self.prefix, self.history)

    def conninfo(self, service: str) -> str:
        return self.shop.conninfos[service]


def create(
    database: Endpoint,
    broker: Endpoint,
    prefix: str,
    history: Path,
    machines: Machines = MACHINES,
    fates: Fates = KIND,
    world: World | None = None,
) -> Stage:
    """Make the shop, a schema for every service that is not of it, and the topics."""
    shop = create_shop(database, prefix, fates, world)
    new = [machine.service for machine in machines if machine.service not in SERVICES]
    conninfos = {name: postgres.create_schema(database, f"{prefix}_{name}") for name in new}
    stage = Stage(replace(shop, conninfos=shop.conninfos | conninfos), broker, prefix, history, machines)
    prepare(stage)
    return stage


def prepare(stage: Stage) -> None:
    """Make what the choreography needs in a shop that is there: tables and topics."""
    for conninfo in stage.shop.conninfos.values():
        with postgres.connect(conninfo) as connection:
            store.create(connection)
    kafka.create_topics(stage.broker, stage.topics, wire.PARTITIONS)


def drop(database: Endpoint, stage: Stage) -> None:
    for name in stage.shop.conninfos:
        postgres.drop_schema(database, f"{stage.prefix}_{name}")


def submit(stage: Stage, orders: Iterable[Order], click: Callable[[Order], Event] = submitted) -> None:
    """What the customers' clicks come to: an event for each order."""
    events = [click(order) for order in orders]
    with Recorder(stage.history, "checkout") as recorder:
        for event in events:
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.correlation_id)
    with wire.sending(stage.broker) as send:
        send([store.outgoing(stage.prefix, event) for event in events])


def said(stage: Stage, service: str, events: Iterable[str]) -> int:
    """Sagas of which the service said one of these last."""
    with postgres.connect(stage.conninfo(service)) as connection:
        query = "select count(*) from saga_states where said = any(%s)"
        return number(connection, query, list(events))


def ended(stage: Stage) -> int:
    """Sagas that have ended, as the service knows that is the last to hear of each."""
    return said(stage, "orders", ENDS)


def at_rest(stage: Stage, connections: Mapping[str, Connection]) -> bool:
    """Whether nothing more will happen by itself: all is heard, and nothing is to be sent or tried again.

    In this order: what a service said because of what it has heard is out of its outbox, so the topics' ends show it.
    """
    heard = dict[tuple[str, Place], int]()
    for machine in stage.machines:
        connection = connections[machine.service]
        heard |= {(machine.service, place): reached for place, reached in offsets(connection).items()}
        if connection.execute(BUSY).fetchone() != (False,):
            return False
    ends = wire.ends(stage.broker, stage.topics)
    return all(
        heard.get((machine.service, place), 0) >= end
        for machine in stage.machines
        for place, end in ends.items()
        if place[0] in stage.heard_by(machine)
    )


def settle(stage: Stage) -> None:
    """The final read: the events that are in an outbox. It decides what a service that died could not note."""
    with Recorder(stage.history, "databases") as recorder:
        for conninfo in stage.shop.conninfos.values():
            with postgres.connect(conninfo) as connection:
                for ident, saga in connection.execute(SAID):
                    recorder.record(Action.READ, Outcome.OK, ident, key=saga)
        recorder.record(Action.READ, Outcome.OK)


# A cast of them.


class Cast:
    """The services of a stage, each in a process. `worker` is `Run.worker`, or what a test has in its place."""

    def __init__(
        self, stage: Stage, worker: Callable[..., Worker], kinds: Mapping[str, type[Service]] | None = None
    ) -> None:
        self.stage = stage
        self.worker = worker
        self.kinds = kinds or {}
        self.workers: dict[str, Worker] = {}
        self.kills: dict[str, list[RecordedKill]] = {}  # that are still to come, by service

    def start(self, *services: str, kills: Sequence[ServiceWindow] = ()) -> "Cast":
        """Start these services, or all; each is to be killed once in each of these windows."""
        for name in services or [machine.service for machine in self.stage.machines]:
            self.launch(name, [RecordedKill(window, history=self.stage.history, process=name) for window in kills])
        return self

    def launch(self, name: str, kills: Sequence[RecordedKill]) -> None:
        """Start one service, for the first of the kills that are to come."""
        self.kills[name] = list(kills)
        kind, kill = self.kinds.get(name, Service), next(iter(kills), None)
        self.workers[name] = self.worker(name, serve, self.stage.post(name), kind, kill)

    def stop(self) -> None:
        for worker in self.workers.values():  # all are told first: each takes up to WAIT to hear it
            worker.process.terminate()
        for worker in self.workers.values():
            worker.stop()

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = 240.0) -> None:
        """Wait for a condition while those are started anew that are killed. Raises DeadlineExceeded, StartFailed."""

        def come_true() -> bool:
            self.look_after()
            return condition()

        until(what, come_true, seconds)

    def until_ended(self, count: int) -> None:
        """Until so many sagas have ended, and all were killed that are to be."""
        self.wait_for(f"{count} sagas to end", lambda: ended(self.stage) >= count and not self.left_to_kill)

    def until_rest(self, without: str = "") -> None:
        """Until nothing more happens, and all were killed that are to be. `without`: a service that is not there.

        Looked at twice: memory cannot be seen.
        """
        there = tuple(machine for machine in self.stage.machines if machine.service != without)
        stage = replace(self.stage, machines=there)
        with self.stage.shop.open() as services:
            look = partial(at_rest, stage, services.connections)
            self.wait_for("rest", lambda: not self.left_to_kill and look() and look())

    @property
    def left_to_kill(self) -> bool:
        return any(self.kills.values())

    def look_after(self) -> None:
        """Start those anew that were killed, for the next kill. Raises StartFailed where one ended by an error."""
        for name, worker in self.workers.items():
            if not worker.alive():
                worker.wait()
                self.launch(name, self.kills[name][1:])
