"""Refunds from a queue that delivers at least once, and what keeps one that comes again from being paid again."""

from collections.abc import Iterable
from enum import StrEnum

from saga.order import Action, Order, Request
from saga.reading import reader, without_nul
from saga.services.effects import EFFECTS
from saga.services.participant import IMPOSSIBLE, perform
from saga.services.shop import Shop
from saga.stage.fates import Fates, TransientError
from saga.windows import EffectWindow, Kill, hook
from shared import codec
from shared.errors import NotReadable
from shared.faults import Hook
from shared.postgres import Connection, connect


class Guard(StrEnum):
    """What keeps a refund that is delivered again from being paid again."""

    NONE = "no guard"
    MESSAGE = "inbox by message id"
    OPERATION = "inbox by operation id"
    STATE = "state of the charge"


QUEUE = """
create table commands (
    position bigint generated always as identity primary key,
    body     bytea not null,                  -- Request
    attempt  int not null default 1,          -- a message that asks again is another message
    done     boolean not null default false,  -- acknowledged
    aside    text                             -- why nobody will ever carry it out: for a person to look at
)
"""
ADD = "insert into commands (body) values (%s)"
NEXT = "select position, body, attempt from commands where not done and aside is null order by position limit 1"
AGAIN = "update commands set attempt = attempt + 1 where position = %s"
DONE = "update commands set done = true where position = %s"
ASIDE = "update commands set aside = %s where position = %s"
_request = reader(Request)


def pay_back(connection: Connection, order: Order) -> str:
    """A refund that does what it is told, each time. Only somebody else's guard can save it."""
    connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s", [order.id]
    )
    connection.execute("update accounts set cents = cents + %s where customer = %s", [order.cents, order.customer])
    return ""


def refund(connection: Connection, guard: Guard, request: Request, attempt: int, fates: Fates, at: Hook) -> None:
    """One delivery of a refund, under this guard. Raises TransientError."""
    careless = {**EFFECTS, Action.REFUND: pay_back}
    if guard is Guard.OPERATION:
        perform(connection, request, fates, at=at, effects=careless)
        return
    if guard is Guard.MESSAGE:  # the key tells the attempt: what asks again is new to the inbox
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
    at(EffectWindow.AFTER)
    fates.after(connection, request)


def enqueue(queue: str, requests: Iterable[Request]) -> None:
    """A fresh queue with these commands, in a schema of its own (conninfo)."""
    with connect(queue) as connection, connection.cursor() as cursor:
        cursor.execute(QUEUE)
        cursor.executemany(ADD, [(codec.encode(request),) for request in requests])


def refunder(shop: Shop, queue: str, guard: Guard, kill: Kill | None = None) -> None:
    """A process: carries out what is in the queue, then acknowledges it. What it is killed in between comes again."""
    with connect(queue) as commands, shop.open() as services, hook(kill) as at:
        payments = services.connections["payments"]
        while row := commands.execute(NEXT).fetchone():
            position, body, attempt = row
            try:
                refund(payments, guard, refund_of(body), attempt, services.fates, at)
                commands.execute(DONE, [position])
            except TransientError:  # no answer came: whoever waits for it asks again, with a new message
                commands.execute(AGAIN, [position])
            except IMPOSSIBLE as error:  # it would come again for ever, and nothing behind it
                commands.execute(ASIDE, [without_nul(str(error)), position])


def refund_of(body: bytes) -> Request:
    """Raises NotReadable where it asks for no refund."""
    if (request := _request(body)).action is not Action.REFUND:
        raise NotReadable(f"it asks for {request.action}")
    return request
