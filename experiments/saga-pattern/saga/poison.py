"""Messages and sagas that nobody can read: how they come about, and the consumer that dies of them."""

import time
from collections.abc import Sequence

from saga.messaging import Header, Outgoing, Topics, command, request_of
from saga.orchestrator import machine
from saga.orchestrator.office import Client
from saga.orchestrator.store import Saga
from saga.order import SERVICE, Action, Order, Reply, Request
from saga.services.participant import perform
from saga.services.shop import Shop
from saga.transport import Inlet, advance, offsets, reached
from shared import codec
from shared.servers.server import Endpoint

GARBAGE = b"\xff\xfe not JSON"


def of_newer_program(client: Client, order: Order) -> None:
    """A saga whose order another version of the program wrote, with fields that this one does not know."""
    turn = machine.begin(client.definition, order.id, time.time())
    payload = codec.encode({"id": order.id, "lines": [{"product": order.product, "quantity": order.quantity}]})
    client.store.add(Saga(turn.state, client.definition.name, client.definition.version, payload), turn.note)


def garbage(topics: Topics, action: Action, key: str) -> Outgoing:
    """A command that is none."""
    return Outgoing(topics.commands[SERVICE[action]], key, GARBAGE, f"{key}#1", key, ((Header.REPLY_TO, "nowhere"),))


def stray_replies(topics: Topics, known: Order) -> list[Outgoing]:
    """Answers that fit nothing: no saga, no step that was ever asked, no answer at all."""
    nobody = Reply("nobody", Action.PLACE)
    never_asked = Reply(known.id, Action.REFUND)
    return [
        Outgoing(topics.replies, nobody.saga, codec.encode(nobody), "stray-1", ""),
        Outgoing(topics.replies, known.id, codec.encode(never_asked), "stray-2", ""),
        Outgoing(topics.replies, known.id, GARBAGE, "stray-3", ""),
    ]


def commands(topics: Topics, action: Action, orders: Sequence[Order], poisoned: int) -> list[Outgoing]:
    """One command for each order; in place of number `poisoned`, counted from 0, one that is none."""
    made = [command(topics, Request(order.id, action, order), 1, order.id) for order in orders]
    made[poisoned] = garbage(topics, action, orders[poisoned].id)
    return made


def careless(shop: Shop, topics: Topics, broker: Endpoint, service: str) -> None:
    """A process: the consumer of many tutorials. It dies of what it cannot read, and reads it again when started."""
    with shop.open() as services:
        connection = services.connections[service]
        inlet = Inlet(broker, [topics.commands[service]], offsets(connection))
        while True:
            for message in inlet.read(seconds=1):
                with connection.transaction():
                    perform(connection, request_of(message), services.fates)
                    advance(connection, reached([message]))
