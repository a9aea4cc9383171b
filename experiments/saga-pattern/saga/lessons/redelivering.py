"""Refunds from a queue that delivers at least once, and what keeps one that comes again from being paid again."""

from enum import StrEnum

from saga.order import Action, Order, Request
from saga.services.effects import EFFECTS
from saga.services.participant import perform
from shared.postgres import Connection


class Guard(StrEnum):
    """What keeps a refund that is delivered again from being paid again."""

    NONE = "no guard"
    MESSAGE = "inbox by message id"
    OPERATION = "inbox by operation id"
    STATE = "state of the charge"


def pay_back(connection: Connection, order: Order) -> str:
    """A refund that does what it is told, each time. Only somebody else's guard can save it."""
    connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s", [order.id]
    )
    connection.execute("update accounts set cents = cents + %s where customer = %s", [order.cents, order.customer])
    return ""


def refund(connection: Connection, guard: Guard, request: Request, attempt: int) -> None:
    """One delivery of a refund, under this guard."""
    careless = {**EFFECTS, Action.REFUND: pay_back}
    if guard is Guard.OPERATION:
        perform(connection, request, effects=careless)
    elif guard is Guard.MESSAGE:  # the key tells the attempt: what asks again is new to the inbox
        with connection.transaction():
            fresh = connection.execute(
                "insert into inbox (request_id, reply) values (%s, '') on conflict do nothing",
                [f"{request.id}#{attempt}"],
            )
            if fresh.rowcount:
                pay_back(connection, request.order)
    else:
        with connection.transaction():
            (EFFECTS if guard is Guard.STATE else careless)[Action.REFUND](connection, request.order)
