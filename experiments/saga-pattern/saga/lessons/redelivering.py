"""Refunds from a queue that delivers at least once, and what keeps one that comes again from being paid again.

Each guard is a function that is given one delivery of a refund. A message that comes again has the same attempt; who
asks again sends another message, with the next one.
"""

from collections.abc import Callable

from saga.order import Action, Order, Request
from saga.services.effects import EFFECTS, refund
from saga.services.participant import perform
from shared.postgres import Connection

Guard = Callable[[Connection, Request, int], None]


def pay_back(connection: Connection, order: Order) -> str:
    """A refund that does what it is told, each time. Only somebody else's guard can save it."""
    connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s", [order.id]
    )
    connection.execute("update accounts set cents = cents + %s where customer = %s", [order.cents, order.customer])
    return ""


def unguarded(connection: Connection, request: Request, attempt: int) -> None:
    """Wrong: paid as often as it comes."""
    with connection.transaction():
        pay_back(connection, request.order)


def by_message(connection: Connection, request: Request, attempt: int) -> None:
    """Wrong: an inbox by the id of the message. What asks again is new to it."""
    with connection.transaction():
        fresh = connection.execute(
            "insert into inbox (request_id, reply) values (%s, '') on conflict do nothing", [f"{request.id}#{attempt}"]
        )
        if fresh.rowcount:
            pay_back(connection, request.order)


def by_operation(connection: Connection, request: Request, attempt: int) -> None:
    """An inbox by the id of the operation, as every service here has it."""
    perform(connection, request, effects={**EFFECTS, Action.REFUND: pay_back})


def by_state(connection: Connection, request: Request, attempt: int) -> None:
    """The charge tells whether there is anything to refund."""
    with connection.transaction():
        refund(connection, request.order)
