"""What the read models must hold, as a fold of all events by the aggregate, with nothing of the projections in it."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC

from shared.postgres import Connection
from sourcing.event import Recorded, category, data_of
from sourcing.shop.order import Order

Content = dict[str, tuple[object, ...]]  # key -> the rest of the row


QUERIES = {
    "order_summary": "select order_id, customer, status, total, paid, changes from order_summary",
    "revenue_per_day": "select day::text, orders, cents, refunds from revenue_per_day",
    "product_sales": "select product, units, cents from product_sales",
}


def fold(events: Iterable[Recorded]) -> dict[str, Content]:
    """The read models by the book, by name: replay every order, then look at it."""
    found: dict[str, Order] = {}
    days: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in events:
        if category(event.stream) == "order":
            order = found.setdefault(event.stream, Order(event.stream.removeprefix("order-")))
            refund = order.paid
            order.apply(event.type, data_of(event))
            order.version = event.version
            day = event.recorded_at.astimezone(UTC).date().isoformat()
            if event.type == "OrderPaid":
                days[day][0] += 1
                days[day][1] += order.paid
            elif event.type == "OrderCancelled":
                days[day][2] += refund
    summary: Content = {s: (o.customer, o.status, o.total, o.paid, o.version) for s, o in found.items()}
    revenue: Content = {day: tuple(sums) for day, sums in days.items()}
    return {"order_summary": summary, "revenue_per_day": revenue, "product_sales": _sales(found.values())}


def _sales(orders: Iterable[Order]) -> Content:
    """What the orders that are paid, and not cancelled after it, have sold."""
    sold: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for order in orders:
        for product, (quantity, cents) in order.lines.items() if order.paid else ():
            sold[product][0] += quantity
            sold[product][1] += quantity * cents
    return {product: tuple(sums) for product, sums in sold.items()}


def read(connection: Connection, projection: str) -> Content:
    """A read model as its table has it; a product of which all was given back counts as one never sold."""
    rows: Content = {row[0]: row[1:] for row in connection.execute(QUERIES[projection])}
    return {key: row for key, row in rows.items() if projection != "product_sales" or any(row)}


def wrong(expected: Content, found: Content) -> int:
    """How many rows are missing, too many, or not what they should be."""
    return len({key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)})
