"""What the services do, one function per action, within a transaction that is already open.

A step returns the reason for which it is refused, or nothing. A compensation returns nothing: it cannot be refused, it
finds out whether there is anything to undo, and undoes it once.
"""

from collections.abc import Callable

from saga.order import Action, Order
from shared.postgres import Connection

Effect = Callable[[Connection, Order], str]


def place(connection: Connection, order: Order) -> str:
    values = [order.id, order.customer, order.product, order.quantity, order.cents]
    connection.execute("insert into orders values (%s, %s, %s, %s, %s, 'placed')", values)
    return ""


def cancel(connection: Connection, order: Order) -> str:
    connection.execute("update orders set status = 'cancelled' where id = %s", [order.id])
    return ""


def reserve(connection: Connection, order: Order) -> str:
    taken = connection.execute(
        "update products set pieces = pieces - %s where name = %s and pieces >= %s",
        [order.quantity, order.product, order.quantity],
    )
    if taken.rowcount == 0:
        return f"not enough of {order.product}"
    values = [order.id, order.product, order.quantity]
    connection.execute("insert into reservations values (%s, %s, %s, 'reserved')", values)
    return ""


def release(connection: Connection, order: Order) -> str:
    released = connection.execute(
        "update reservations set status = 'released' where order_id = %s and status = 'reserved'", [order.id]
    )
    if released.rowcount:
        connection.execute("update products set pieces = pieces + %s where name = %s", [order.quantity, order.product])
    return ""


def charge(connection: Connection, order: Order) -> str:
    taken = connection.execute(
        "update accounts set cents = cents - %s where customer = %s and cents >= %s",
        [order.cents, order.customer, order.cents],
    )
    if taken.rowcount == 0:
        return f"{order.customer} cannot pay {order.cents}"
    values = [order.id, order.customer, order.cents]
    connection.execute("insert into charges (order_id, customer, cents, status) values (%s, %s, %s, 'charged')", values)
    return ""


def refund(connection: Connection, order: Order) -> str:
    refunded = connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s and status = 'charged'",
        [order.id],
    )
    if refunded.rowcount:
        connection.execute("update accounts set cents = cents + %s where customer = %s", [order.cents, order.customer])
    return ""


def ship(connection: Connection, order: Order) -> str:
    connection.execute("insert into shipments values (%s, 'shipped')", [order.id])
    return ""


def recall(connection: Connection, order: Order) -> str:
    connection.execute("update shipments set status = 'recalled' where order_id = %s", [order.id])
    return ""


EFFECTS: dict[Action, Effect] = {
    Action.PLACE: place,
    Action.RESERVE: reserve,
    Action.CHARGE: charge,
    Action.SHIP: ship,
    Action.CANCEL: cancel,
    Action.RELEASE: release,
    Action.REFUND: refund,
    Action.RECALL: recall,
}
