"""What comes back of an order that was shipped: less than what went out, later, and by hand.

The effects here stand in for those of the services (`effects=` of `perform`). The warehouse has a shelf with the pieces
that are really there; the stock service has the books, which say what can be sold. A carrier is paid for each parcel.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import structs

from saga.lessons.compensating import asker, forward, undo
from saga.order import STEPS, Action, Order, World, orders
from saga.services import effects
from saga.services.effects import EFFECTS, Effect
from saga.services.shop import Services
from shared.postgres import Connection, number

BROKEN = 3  # in every third parcel that comes back, one piece is broken
PARCEL = 450  # cents that the carrier takes for a parcel, and the fee that a customer who sends it back pays
TABLES = {
    "shipping": """
        create table shelf (product text primary key, pieces bigint not null check (pieces >= 0));
        create table returns (order_id text primary key, product text not null, pieces int not null, good int);
    """,
    "stock": "create table restocked (order_id text primary key, pieces int not null)",
    "payments": """
        create table fees (order_id text primary key, cents bigint not null);
        create table balances_before (order_id text primary key, cents bigint not null);
    """,
}


def prepare(services: Services, world: World) -> None:
    """The tables, and a full shelf."""
    for service, tables in TABLES.items():
        services.connections[service].execute(tables)
    with services.connections["shipping"].cursor() as cursor:
        rows = [(name, world.pieces) for name in world.product_names()]
        cursor.executemany("insert into shelf values (%s, %s)", rows)


# What really happens in the warehouse, whatever the books say.


def ship_from_shelf(connection: Connection, order: Order) -> str:
    taken = connection.execute(
        "update shelf set pieces = pieces - %s where product = %s and pieces >= %s",
        [order.quantity, order.product, order.quantity],
    )
    if taken.rowcount == 0:
        return f"there is not enough of {order.product} on the shelf"
    return effects.ship(connection, order)


def recall_parcel(connection: Connection, order: Order) -> str:
    """The parcel turns round. It is back in some days."""
    effects.recall(connection, order)
    expected = (
        "insert into returns (order_id, product, pieces)"
        " select order_id, %s, %s from shipments where order_id = %s on conflict do nothing"
    )
    connection.execute(expected, [order.product, order.quantity, order.id])
    return ""


def shelve(connection: Connection, order: Order, good: int) -> int:
    """The parcel is back, and was inspected: the good pieces go on the shelf, once. Returns how many they are."""
    with connection.transaction():
        inspected = connection.execute(
            "update returns set good = %s where order_id = %s and good is null", [good, order.id]
        )
        if inspected.rowcount:
            connection.execute("update shelf set pieces = pieces + %s where product = %s", [good, order.product])
        (kept,) = connection.execute("select good from returns where order_id = %s", [order.id]).fetchone() or (0,)
    return int(kept)


def restock(connection: Connection, order: Order, pieces: int) -> None:
    """And into the books, once: they are for sale again."""
    with connection.transaction():
        fresh = connection.execute("insert into restocked values (%s, %s) on conflict do nothing", [order.id, pieces])
        if fresh.rowcount:
            connection.execute("update products set pieces = pieces + %s where name = %s", [pieces, order.product])


# The compensations that know of it.


def refund_less_fee(connection: Connection, order: Order) -> str:
    """The customer gets back what was paid, less what the parcel has cost."""
    if connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s and status = 'charged'",
        [order.id],
    ).rowcount:
        connection.execute("insert into fees values (%s, %s)", [order.id, PARCEL])
        back = "update accounts set cents = cents + %s where customer = %s"
        connection.execute(back, [order.cents - PARCEL, order.customer])
    return ""


def close_reservation(connection: Connection, order: Order) -> str:
    """The customer's claim ends. What comes back is for the inspection to say (restock)."""
    connection.execute("update reservations set status = 'released' where order_id = %s", [order.id])
    return ""


# What is wrong with taking a compensation for a rollback: the state before is put back.


def charge_and_remember(connection: Connection, order: Order) -> str:
    before = "insert into balances_before select %s, cents from accounts where customer = %s"
    connection.execute(before, [order.id, order.customer])
    return effects.charge(connection, order)


def put_balance_back(connection: Connection, order: Order) -> str:
    connection.execute(
        "update charges set status = 'refunded', refunded = refunded + 1 where order_id = %s", [order.id]
    )
    connection.execute(
        "update accounts set cents = b.cents from balances_before b where b.order_id = %s and customer = %s",
        [order.id, order.customer],
    )
    return ""


WAREHOUSE = {**EFFECTS, Action.SHIP: ship_from_shelf, Action.RECALL: recall_parcel}
EXACT: Mapping[Action, Effect] = WAREHOUSE  # everything is as before at once, in the books
SEMANTIC: Mapping[Action, Effect] = {**WAREHOUSE, Action.REFUND: refund_less_fee, Action.RELEASE: close_reservation}
BEFORE_IMAGE: Mapping[Action, Effect] = {
    **EFFECTS,
    Action.CHARGE: charge_and_remember,
    Action.REFUND: put_balance_back,
}


def buy(services: Services, order: Order) -> str:
    """An order, undone again if need be; returns the reason. Undone before anything left, it is the exact reverse."""
    ask = asker(services, WAREHOUSE)
    if (went := forward(ask, order)).refused:
        undo(ask, order, went.done[::-1])
    return went.refused


@dataclass(frozen=True)
class Season:
    """What came of selling, sending back and selling again."""

    sent_back: int  # orders
    charged_in_vain: tuple[int, int]  # customers who paid for what is not on the shelf: before, after the parcels come
    apart: int  # pieces by which the books differ from the shelf in the end
    loss: int  # cents that the shop paid to the carrier and did not get back
    conserved: bool  # the money


def season(services: Services, world: World, how: Mapping[Action, Effect], seed: int, count: int) -> Season:
    """Sell out, have everything sent back, sell; the parcels arrive, some pieces broken; sell again."""
    prepare(services, world)
    sold = [order for order in orders(seed, count, world) if not buy(services, order)]
    for order in sold:
        undo(asker(services, how), order, STEPS[::-1])
    early = _in_vain(services, orders(seed, count, world, "early"))
    for place, order in enumerate(sold):
        good = shelve(services.connections["shipping"], order, order.quantity - (place % BROKEN == 0))
        if how is SEMANTIC:
            restock(services.connections["stock"], order, good)
    late = _in_vain(services, orders(seed, count, world, "late"))
    apart = sum(abs(in_books(services, name) - on_shelf(services, name)) for name in world.product_names())
    cents = money(services)
    conserved = cents["accounts"] + cents["kept"] + cents["fees"] == world.balance * world.customers
    return Season(len(sold), (early, late), apart, cents["parcels"] - cents["fees"], conserved)


def _in_vain(services: Services, wanted: Iterable[Order]) -> int:
    """How many customers are charged, and then told that the shelf is empty."""
    return sum("shelf" in buy(services, order) for order in wanted)


def pairs(services: Services, world: World, how: Mapping[Action, Effect], seed: int) -> None:
    """Two orders of each customer: the first is undone when the second is paid."""
    prepare(services, world)
    ask = asker(services, how)
    for customer in world.customer_names():
        first, second = (structs.replace(order, customer=customer) for order in orders(seed, 2, world, customer))
        forward(ask, first)
        forward(ask, second)
        undo(ask, first, STEPS[::-1])


def on_shelf(services: Services, product: str) -> int:
    return number(services.connections["shipping"], "select pieces from shelf where product = %s", product)


def in_books(services: Services, product: str) -> int:
    return number(services.connections["stock"], "select pieces from products where name = %s", product)


def money(services: Services) -> dict[str, int]:
    """Cents: in accounts, kept for orders, kept as fees, owed to the carrier for parcels that came back."""
    payments = services.connections["payments"]
    queries = {
        "accounts": "select sum(cents) from accounts",
        "kept": "select sum(cents) from charges where status = 'charged'",
        "fees": "select sum(cents) from fees",
    }
    back = number(services.connections["shipping"], "select count(*) from returns")
    return {**{name: number(payments, query) for name, query in queries.items()}, "parcels": back * PARCEL}
