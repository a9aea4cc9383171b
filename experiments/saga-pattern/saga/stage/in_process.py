"""An orchestrator and its services in one process, moved on step by step: what happens when is the caller's choice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from saga.messaging import Topics
from saga.orchestrator.definition import Definition
from saga.orchestrator.machine import MOVING
from saga.orchestrator.office import Client, Office, client
from saga.orchestrator.store import Store, create
from saga.orchestrator.worker import Orchestrator
from saga.order import Action
from saga.services.host import Host, prepare
from saga.stage.fates import Fate, FatedShop, Fates
from saga.transport import Inlet, Outlet, offsets
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint
from shared.wait import until

T = TypeVar("T")
WAIT = 0.01  # seconds that each waits for messages in its turn


@dataclass
class Ensemble:
    """One worker, one host of all services, one client."""

    office: Office
    shop: FatedShop
    connection: Connection  # to look into the orchestrator's database
    client: Client
    orchestrator: Orchestrator
    host: Host

    def fate(self, fixed: dict[tuple[str, Action], Fate]) -> None:
        """From now on nothing happens but this."""
        fates = Fates(steps={}, undos={}, fixed=fixed)
        self.shop = replace(self.shop, fates=fates)
        self.host.services = self.shop.called(self.host.services.connections)

    def status(self, saga: str) -> str:
        """How a saga stands; empty when there is none."""
        row = self.connection.execute("select status from sagas where id = %s", [saga]).fetchone()
        return str(row[0]) if row else ""

    def notes(self, saga: str) -> list[str]:
        """The history of a saga."""
        lines = "select note from saga_log where saga = %s order by position"
        return [note for (note,) in self.connection.execute(lines, [saga]).fetchall()]

    def parked_messages(self) -> list[str]:
        """Why messages were put aside by the orchestrator."""
        rows = self.connection.execute("select reason from parked_messages order by position").fetchall()
        return [reason for (reason,) in rows]

    def play(self, saga: str) -> str:
        """Let both work until the saga rests; returns its status. Raises DeadlineExceeded."""
        self.until(f"{saga} to rest", lambda: self.status(saga) not in MOVING)
        return self.status(saga)

    def until(self, what: str, seen: Callable[[], T | None], worker: bool = True, host: bool = True) -> T:
        """Let them work, or one of them, until there is something to be seen. Raises DeadlineExceeded."""

        def look() -> T | None:
            if host:
                self.host.step(WAIT)
            if worker:
                self.orchestrator.step(WAIT)
            return seen()

        return until(what, look)


@contextmanager
def staged(
    conninfo: str, broker: Endpoint, topics: Topics, shop: FatedShop, definition: Definition
) -> Iterator[Ensemble]:
    """Set up in a fresh schema and on fresh topics, both of which are there already."""
    create(conninfo, definition)
    prepare(shop)
    office = Office(conninfo, broker, topics)
    with ExitStack() as things:
        store = Store(things.enter_context(connect(conninfo)), 0)
        replies = Inlet(broker, [topics.replies], store.offsets())
        things.callback(replies.close)
        services = things.enter_context(shop.open())
        start = {place: at for one in services.connections.values() for place, at in offsets(one).items()}
        commands = Inlet(broker, topics.commands.values(), start)
        things.callback(commands.close)
        answers, asked = (things.enter_context(closing(Outlet(broker))) for _ in range(2))
        yield Ensemble(
            office,
            shop,
            things.enter_context(connect(conninfo)),
            things.enter_context(client(office, definition)),
            Orchestrator(store, replies, asked, topics),
            Host(services, commands, answers),
        )
