"""The wrong way: a payment service without an idempotency key, which charges again whenever it is asked again."""

from saga.order import Order
from shared.postgres import Connection

TAKE = "update accounts set cents = cents - %s where customer = %s"
CHARGE = """
insert into charges (order_id, customer, cents, status) values (%s, %s, %s, 'charged')
on conflict (order_id) do update set charged = charges.charged + 1
"""


def charge_again(connection: Connection, order: Order) -> str:
    """A charge that knows nothing of an earlier one, as an effect of `saga.services`. The row tells how often."""
    connection.execute(TAKE, [order.cents, order.customer])
    connection.execute(CHARGE, [order.id, order.customer, order.cents])
    return ""
