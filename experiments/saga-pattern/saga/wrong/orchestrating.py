"""The popular ways to be wrong, small and honest: state in memory, and services that do what they are asked each time.

The third one, sending before the commit, is a switch of the Orchestrator.
"""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from saga.orchestrator.definition import Definition
from saga.orchestrator.office import Client, Office
from saga.orchestrator.store import Changes, Saga, Store
from saga.orchestrator.worker import Orchestrator
from saga.order import Action, Order, Reply, Request
from saga.services.effects import EFFECTS
from saga.services.participant import Also
from saga.stage.fates import Fates
from saga.transport import Inlet, Outlet, Place
from saga.windows import Kill, hook
from saga.wrong.keyless import charge_again
from shared.history import Recorder
from shared.postgres import Connection


class MemoryStore(Store):
    """Sagas in a dictionary: fast, and gone with the process."""

    def __init__(self, definition: Definition) -> None:
        self.sagas: dict[str, Saga] = {}
        self._definition = definition

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def lock(self, sagas: Iterable[str]) -> dict[str, Saga]:
        return {name: self.sagas[name] for name in sagas if name in self.sagas}

    def due(self, now: float, most: int) -> dict[str, Saga]:
        late = (name for name, saga in self.sagas.items() if saga.state.due is not None and saga.state.due <= now)
        return {name: self.sagas[name] for _, name in zip(range(most), late, strict=False)}

    def asked(self) -> dict[str, Saga]:
        return {}

    def offsets(self) -> dict[Place, int]:
        return {}

    def save(self, changes: Changes) -> None:
        self.sagas.update(changes.sagas)

    def add(self, saga: Saga, note: str) -> bool:
        return self.sagas.setdefault(saga.state.id, saga) is saga

    def definition(self, name: str, version: int) -> Definition:
        return self._definition


def work_in_memory(
    office: Office, definition: Definition, orders: Sequence[Order], kill: Kill | None, history: Path
) -> None:
    """A process: a worker whose sagas are in its memory. It begins them itself; nobody else could."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ExitStack() as things:
        recorder = things.enter_context(Recorder(history, "worker-0"))
        store = MemoryStore(definition)
        # From the first reply on: those to a worker that was here before mean nothing to this one.
        inlet = Inlet(office.broker, [office.topics.replies], {}, recorder=recorder)
        things.callback(inlet.close)
        outlet = Outlet(office.broker, recorder)
        client = Client(store, outlet, office.topics, definition)
        for order in orders:
            client.start(order)
        outlet.flush()
        Orchestrator(store, inlet, outlet, office.topics, things.enter_context(hook(kill))).run(stop)


def perform_each_time(connection: Connection, request: Request, fates: Fates, also: Also) -> Reply:
    """What a service does that knows no idempotency key: what it is asked, each time it is asked."""
    refused = fates.before(connection, request)
    with connection.transaction():
        refused = refused or NO_KEY[request.action](connection, request.order)
        reply = Reply(request.saga, request.action, refused)
        also(connection, request, reply)
    fates.after(connection, request)
    return reply


def _place(connection: Connection, order: Order) -> str:
    values = [order.id, order.customer, order.product, order.quantity, order.cents]
    connection.execute("insert into orders values (%s, %s, %s, %s, %s, 'placed') on conflict do nothing", values)
    return ""


def _reserve(connection: Connection, order: Order) -> str:
    """Takes the pieces again, and says how many are taken by now."""
    connection.execute("update products set pieces = pieces - %s where name = %s", [order.quantity, order.product])
    more = (
        "insert into reservations values (%s, %s, %s, 'reserved')"
        " on conflict (order_id) do update set quantity = reservations.quantity + excluded.quantity"
    )
    connection.execute(more, [order.id, order.product, order.quantity])
    return ""


def _ship(connection: Connection, order: Order) -> str:
    connection.execute("insert into shipments values (%s, 'shipped') on conflict do nothing", [order.id])
    return ""


NO_KEY = {
    **EFFECTS,
    Action.PLACE: _place,
    Action.RESERVE: _reserve,
    Action.CHARGE: charge_again,
    Action.SHIP: _ship,
}
