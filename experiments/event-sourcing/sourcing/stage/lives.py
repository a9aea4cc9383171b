"""Lives of orders in a seeded shop: placed, changed, most of them paid and shipped, some cancelled."""

import random
from collections.abc import Callable, Iterator, Sequence

from shared.postgres import Connection
from shared.wait import until
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.shop.order import Order
from sourcing.store import NO_STREAM

PRODUCTS = tuple(f"product-{number:02d}" for number in range(20))
PER_TRANSACTION = 100  # orders
READABLE = """
select 1 from (select xid from events order by xid desc limit 1) as last
where xid < events_xid(pg_snapshot_xmin(pg_current_snapshot()))
"""


def orders(
    seed: int, count: int, prefix: str = "", price: Callable[[str], int] | None = None
) -> Iterator[tuple[str, Sequence[NewEvent]]]:
    """So many lives of orders, 2 to 7 events each, as (stream, events); the same for the same seed but for the ids.

    Prices, in cents, are invented unless there is somebody to ask.
    """
    rng = random.Random(f"{seed} {prefix}")
    for number in range(count):
        order = Order(f"{prefix}{number:06d}")
        _live(order, rng, price or (lambda product: rng.randrange(100, 10_000)))
        yield order.stream, order.uncommitted


def _live(order: Order, rng: random.Random, price: Callable[[str], int]) -> None:
    order.place(f"customer-{rng.randrange(50):02d}")
    for product in rng.sample(PRODUCTS, rng.randrange(1, 4)):
        order.add_line(product, rng.randrange(1, 5), price(product))
    if len(order.lines) > 1 and rng.random() < 0.3:
        order.remove_line(rng.choice(list(order.lines)))
    if rng.random() < 0.9:
        order.pay(order.total)
    if order.status == "paid" and rng.random() < 0.8:
        order.ship()
    elif rng.random() < 0.5:
        order.cancel("changed their mind")


def write(
    connection: Connection, seed: int, count: int, prefix: str = "", price: Callable[[str], int] | None = None
) -> int:
    """Write the orders, many in each transaction; returns how many events, when `read_all` gives all of them."""
    store, waiting, events = PostgresStore(connection), list(orders(seed, count, prefix, price)), 0
    for first in range(0, count, PER_TRANSACTION):
        with connection.transaction():
            for stream, life in waiting[first : first + PER_TRANSACTION]:
                events += store.append(stream, life, NO_STREAM)
    until("older transactions to end", lambda: connection.execute(READABLE).fetchone())
    return events
