"""The four services' databases: made, opened, and judged when all is at rest."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from saga.order import SERVICE, Action, Reply, Request, World
from saga.services.effects import EFFECTS, Effect
from saga.services.participant import Also, perform
from saga.windows import Hook, nowhere
from shared import postgres
from shared.postgres import Connection
from shared.servers.server import Endpoint

SCHEMA = Path(__file__).with_name("schema.sql")
SERVICES = "orders", "stock", "payments", "shipping"


@dataclass(frozen=True)
class Shop:
    """Where the services live, a conninfo for each by name, and what they do. Can be sent to worker processes."""

    conninfos: dict[str, str]
    world: World = field(default_factory=World)
    effects: Mapping[Action, Effect] = field(default_factory=lambda: EFFECTS)

    @contextmanager
    def open(self) -> Iterator["Services"]:
        """A connection to each service's database."""
        with ExitStack() as things:
            connections = {name: things.enter_context(postgres.connect(url)) for name, url in self.conninfos.items()}
            yield self.called(connections)

    def called(self, connections: dict[str, Connection]) -> "Services":
        """The services on these connections."""
        return Services(connections, self.effects)


@dataclass(frozen=True)
class Services:
    """The services as a process calls them directly, without messages between. Not for several threads at once."""

    connections: dict[str, Connection]
    effects: Mapping[Action, Effect] = field(default_factory=lambda: EFFECTS)

    def __call__(self, request: Request, also: Also | None = None, at: Hook = nowhere) -> Reply:
        """Have the service of the action carry it out, once. Raises TransientError."""
        effects = {request.action: self.effect(request.action)}
        return perform(self.connections[SERVICE[request.action]], request, also, at, effects)

    def effect(self, action: Action) -> Effect:
        """What the service does for an action."""
        return self.effects[action]


def create(endpoint: Endpoint, prefix: str, world: World | None = None) -> Shop:
    """Make the four schemas `<prefix>_<service>`, with what the world has in them."""
    world = world or World()
    return Shop({name: add(endpoint, prefix, name, world) for name in SERVICES}, world)


def add(endpoint: Endpoint, prefix: str, service: str, world: World) -> str:
    """Make one service's schema, also of one that is not of the four; returns its conninfo."""
    parts, conninfo = _parts(), postgres.create_schema(endpoint, f"{prefix}_{service}")
    with postgres.connect(conninfo) as connection:
        connection.execute(parts["every service"])
        if service in parts:
            connection.execute(parts[service])
        _fill(connection, service, world)
    return conninfo


def drop(endpoint: Endpoint, prefix: str) -> None:
    for name in SERVICES:
        postgres.drop_schema(endpoint, f"{prefix}_{name}")


def _fill(connection: Connection, service: str, world: World) -> None:
    if service == "stock":
        statement, rows = "insert into products values (%s, %s)", [(n, world.pieces) for n in world.product_names()]
    elif service == "payments":
        statement, rows = "insert into accounts values (%s, %s)", [(n, world.balance) for n in world.customer_names()]
    else:
        return
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows)


@cache
def _parts() -> dict[str, str]:
    """The sections of schema.sql by name."""
    pieces = re.split(r"^-- \{\{(.+)\}\}$", SCHEMA.read_text(), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))
