"""Where an orchestrator is, and how a saga begins there: a row is committed, then its first command is sent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saga.messaging import Outgoing, Topics, Unreadable, command
from saga.orchestrator import machine
from saga.orchestrator.definition import Definition
from saga.orchestrator.store import Saga, Store
from saga.order import Action, Order, Request
from saga.reading import reader
from saga.transport import Outlet
from shared import codec
from shared.errors import NotReadable
from shared.postgres import connect
from shared.servers.server import Endpoint

_order = reader(Order)


@dataclass(frozen=True)
class Office:
    """Its database, its broker, its topics, and how many workers share them. Can be sent to worker processes."""

    conninfo: str
    broker: Endpoint
    topics: Topics
    workers: int = 1


def ask(topics: Topics, saga: Saga, action: Action, cause: str) -> Outgoing:
    """The command that a saga's state asks for. Raises Unreadable: another version of this program wrote its order."""
    try:
        order = _order(saga.payload)
    except NotReadable as error:
        raise Unreadable(f"the order of the saga cannot be read: {error}") from error
    return command(topics, Request(saga.state.id, action, order), saga.state.attempt, cause)


@dataclass(frozen=True)
class Client:
    """Begins sagas of one definition."""

    store: Store
    outlet: Outlet
    topics: Topics
    definition: Definition

    def start(self, order: Order) -> bool:
        """Begin the saga `order.id`; returns when it is stored. False when it was there before: nothing was done.

        Raises NotWritable or NotReadable, before anything is done, for an order that no service could read or keep.
        Killed before the command is sent, the saga waits for the time-out of its first attempt.
        """
        _order(payload := codec.encode(order))
        turn = machine.begin(self.definition, order.id, time.time())
        saga = Saga(turn.state, self.definition.name, self.definition.version, payload)
        if not self.store.add(saga, turn.note):
            return False
        if turn.command:
            self.outlet.send([ask(self.topics, saga, turn.command, order.id)])
        return True


@contextmanager
def client(office: Office, definition: Definition, outlet: Outlet | None = None) -> Iterator[Client]:
    """A client; what it sent is with the broker at the end of the block, and its outlet closed."""
    with connect(office.conninfo) as connection:
        outlet = outlet or Outlet(office.broker)
        try:
            yield Client(Store(connection), outlet, office.topics, definition)
            outlet.flush()
        finally:
            outlet.close()
