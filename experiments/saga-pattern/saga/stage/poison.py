"""Messages and sagas that nobody can read: how they come about."""

import time
from collections.abc import Sequence

from saga.messaging import Header, Outgoing, Topics, command
from saga.orchestrator import machine
from saga.orchestrator.office import Client
from saga.orchestrator.store import Saga
from saga.order import SERVICE, Action, Order, Reply, Request
from saga.stage.foreign import odd
from shared import codec

GARBAGE = b"\xff\xfe not JSON"


def payloads(order: Order) -> dict[str, bytes]:
    """What another program may have written for the order of a saga; first, with fields that this one does not know."""
    lines = [{"product": order.product, "quantity": order.quantity}]
    return {"a newer program": codec.encode({"id": order.id, "lines": lines}), **odd(order)}


def of_another_program(client: Client, order: Order, payload: bytes | None = None) -> None:
    """A saga of which nothing is sent, with a payload that this program would not write, or with its own."""
    turn = machine.begin(client.definition, order.id, time.time())
    payload = codec.encode(order) if payload is None else payload
    saga = Saga(turn.state, client.definition.name, client.definition.version, payload)
    client.store.add(saga, turn.note)


def garbled(topics: Topics, order: Order) -> Outgoing:
    """An answer to the first command of the order's saga, by a service that writes Latin-1."""
    value = b'{"saga":"%s","action":"place-order","refused":"gesch\xfctzt"}' % order.id.encode()
    return Outgoing(topics.replies, order.id, value, "garbled", f"{order.id}:{Action.PLACE}#1")


def garbage(topics: Topics, action: Action, key: str, value: bytes) -> Outgoing:
    """A command that is none."""
    return Outgoing(topics.commands[SERVICE[action]], key, value, f"{key}#1", key, ((Header.REPLY_TO, "nowhere"),))


def stray_replies(topics: Topics, known: Order) -> list[Outgoing]:
    """Answers that fit nothing: no saga, no step that was ever asked, no answer at all."""
    nobody = Reply("nobody", Action.PLACE)
    never_asked = Reply(known.id, Action.REFUND)
    return [
        Outgoing(topics.replies, nobody.saga, codec.encode(nobody), "stray-1", ""),
        Outgoing(topics.replies, known.id, codec.encode(never_asked), "stray-2", ""),
        Outgoing(topics.replies, nobody.saga, GARBAGE, "stray-3", ""),
    ]


def values(action: Action, order: Order) -> list[bytes]:
    """What another program may have written for a command: no JSON at all, then JSON with one thing wrong."""
    whole = b'{"saga":"%s","action":"%s","order":%s}'
    return [GARBAGE, *(whole % (order.id.encode(), action.encode(), what) for what in odd(order).values())]


def commands(topics: Topics, action: Action, orders: Sequence[Order], poisoned: int) -> list[Outgoing]:
    """One command for each order; instead of number `poisoned`, counted from 0, some that are none."""
    made = [command(topics, Request(order.id, action, order), 1, order.id) for order in orders]
    order = orders[poisoned]
    made[poisoned : poisoned + 1] = [garbage(topics, action, order.id, value) for value in values(action, order)]
    return made
