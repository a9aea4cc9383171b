"""Where a choreography is played: databases, topics, machines; made, filled with orders, and looked at from outside."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from saga.choreography import store, wire
from saga.choreography.machine import ENDS, MACHINES, SUBMITTED, Machine, Machines, emitter
from saga.choreography.service import submitted
from saga.order import Order, World
from saga.services.shop import SERVICES
from saga.stage.choreography.process import Post
from saga.stage.fates import KIND, FatedShop, Fates
from saga.stage.fates import create as create_shop
from saga.transport import Place, offsets
from shared import kafka, postgres
from shared.event import Event
from shared.history import Action, Outcome, Recorder
from shared.postgres import Connection
from shared.servers.server import Endpoint

BUSY = """
select exists (select from held where due is not null) or exists (select from outbox where sent_at is null)
"""
SAID = (
    "select convert_from(decode(convert_from(headers, 'UTF8')::jsonb ->> 'ce_id', 'base64'), 'UTF8'), key from outbox"
)


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
        return int((connection.execute(query, [list(events)]).fetchone() or [0])[0])


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
