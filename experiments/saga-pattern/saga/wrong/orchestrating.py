"""The popular ways to be wrong: state in memory, commands sent before the commit, services that know no key."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saga.orchestrator.definition import Definition
from saga.orchestrator.store import Changes, Saga, Store
from saga.orchestrator.worker import Orchestrator, Turns
from saga.order import SERVICE, Action, Order, Reply, Request
from saga.services.effects import EFFECTS
from saga.services.participant import Also
from saga.services.shop import Services, Shop
from saga.transport import Place
from saga.windows import Hook, WorkerWindow, nowhere
from saga.wrong.keyless import charge_again
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


class SendFirst(Orchestrator):
    """Commands leave before the state that asks for them is committed."""

    @contextmanager
    def _transaction(self) -> Iterator[Turns]:
        turns = Turns()
        with self.store.transaction():
            yield turns
            if turns == Turns():
                return
            self.store.save(turns.changes)
            self.outlet.promise(turns.commands)
            for one in turns.commands:
                self.outlet.put(one.topic, one.value, one.saga, one.headers)
            self.outlet.flush()
            self.at(WorkerWindow.SAVED)
        self.at(WorkerWindow.COMMITTED)
        self.at(WorkerWindow.SENT)


@dataclass(frozen=True)
class EachTime(Services):
    """Services that know no idempotency key: they do what they are asked, each time they are asked."""

    def __call__(self, request: Request, also: Also | None = None, at: Hook = nowhere) -> Reply:
        connection = self.connections[SERVICE[request.action]]
        with connection.transaction():
            refused = self.effect(request.action)(connection, request.order)
            reply = Reply(request.saga, request.action, refused)
            if also:
                also(connection, request, reply)
        return reply


@dataclass(frozen=True)
class EachTimeShop(Shop):
    """A shop of such services."""

    def called(self, connections: dict[str, Connection]) -> EachTime:
        return EachTime(connections, NO_KEY)


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
