"""Three read models of the same orders: one row per order, a sum per day, and sales per product.

Each takes a whole batch by folding it in memory and writing the result by one statement per table: rows are given as
arrays (`unnest`), and `on conflict` adds to those that are there.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import msgspec

from shared import codec
from shared.codec import convert
from shared.postgres import Connection
from sourcing.event import TOMBSTONE
from sourcing.projection import Change, Projection

Lines = dict[str, tuple[int, int]]  # product -> (quantity, price of one in cents)
LIFE = frozenset(
    {"OrderPlaced", "LineAdded", "LineRemoved", "OrderPaid", "OrderShipped", "OrderCancelled"},
)


# What the events must say, for these read models; whatever else they say is left alone.


class Placed(msgspec.Struct):
    customer: str


class Line(msgspec.Struct):
    product: str
    quantity: int
    cents: int


class Removed(msgspec.Struct):
    product: str


class Paid(msgspec.Struct):
    cents: int


class Cancelled(msgspec.Struct):
    refund: int


_lines = codec.decoder(Lines)
_json = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Summary:
    """A row of order_summary."""

    customer: str = ""
    status: str = "new"
    total: int = 0
    paid: int = 0
    changes: int = 0
    changed_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    lines: Lines = field(default_factory=dict)

    def take(self, change: Change) -> None:
        match change.type:
            case "OrderPlaced":
                self.customer, self.status = convert(change.data, Placed).customer, "open"
            case "LineAdded" | "LineRemoved":
                change_lines(self.lines, change)
                self.total = sum(quantity * cents for quantity, cents in self.lines.values())
            case "OrderPaid":
                self.status, self.paid = "paid", convert(change.data, Paid).cents
            case "OrderShipped":
                self.status = "shipped"
            case "OrderCancelled":
                self.status, self.paid = "cancelled", 0
        self.changes += 1
        self.changed_at = change.event.recorded_at


class OrderSummary(Projection):
    """One row per order, as the shop's list of orders shows it. A deleted stream takes its row along."""

    name: ClassVar[str] = "order_summary"
    tables: ClassVar[tuple[str, ...]] = ("order_summary",)
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE
    schema: ClassVar[str] = """
    create table order_summary (
        order_id   text collate "C" primary key,
        customer   text not null,
        status     text not null,
        total      bigint not null,      -- cents
        paid       bigint not null,
        changes    bigint not null,      -- events so far
        changed_at timestamptz not null,
        lines      jsonb not null        -- product -> [quantity, cents]: an event that removes a line names no amount
    )"""
    load = "select order_id, customer, status, total, paid, changes, changed_at, lines::text from order_summary"
    store = """
    insert into order_summary
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
                         %s::timestamptz[], %s::jsonb[])
    on conflict (order_id) do update set (customer, status, total, paid, changes, changed_at, lines)
        = row(excluded.customer, excluded.status, excluded.total, excluded.paid, excluded.changes,
              excluded.changed_at, excluded.lines)
    """

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        rows = self._rows(connection, changes)
        gone = [change.event.stream for change in changes if change.type == TOMBSTONE]
        for change in changes:
            rows[change.event.stream].take(change)
        kept = [
            (order_id, row.customer, row.status, row.total, row.paid, row.changes, row.changed_at, text(row.lines))
            for order_id, row in rows.items()
        ]
        connection.execute(self.store, columns(kept), prepare=True)
        if gone:
            connection.execute("delete from order_summary where order_id = any(%s)", [gone])

    def _rows(self, connection: Connection, changes: Iterable[Change]) -> dict[str, Summary]:
        """The rows that the changes are about, as they are now."""
        rows = {change.event.stream: Summary() for change in changes}
        found = connection.execute(self.load + " where order_id = any(%s)", [list(rows)], prepare=True)
        for order_id, customer, status, total, paid, count, changed_at, lines in found:
            rows[order_id] = Summary(customer, status, total, paid, count, changed_at, _lines(lines))
        return rows


class RevenuePerDay(Projection):
    """What was paid and given back, by day (UTC). Sums alone: it looks nothing up, and remembers no order.

    A deleted stream changes nothing: the money was taken. Once its events are scavenged, a rebuild no longer counts it.
    """

    name: ClassVar[str] = "revenue_per_day"
    tables: ClassVar[tuple[str, ...]] = ("revenue_per_day",)
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE
    schema: ClassVar[str] = """
    create table revenue_per_day (
        day     date primary key,
        orders  bigint not null,
        cents   bigint not null,
        refunds bigint not null          -- cents
    )"""
    add = """
    insert into revenue_per_day as known select * from unnest(%s::date[], %s::bigint[], %s::bigint[], %s::bigint[])
    on conflict (day) do update set orders = known.orders + excluded.orders, cents = known.cents + excluded.cents,
                                    refunds = known.refunds + excluded.refunds
    """

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        days: dict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
        for change in changes:
            if change.type == "OrderPaid":
                day = days[day_of(change)]
                day[0] += 1
                day[1] += convert(change.data, Paid).cents
            elif change.type == "OrderCancelled":
                days[day_of(change)][2] += convert(change.data, Cancelled).refund
        if days:
            connection.execute(self.add, columns([(day, *sums) for day, sums in days.items()]), prepare=True)


class ProductSales(Projection):
    """Units and cents sold of each product. It remembers the lines of orders that can still change."""

    name: ClassVar[str] = "product_sales"
    tables: ClassVar[tuple[str, ...]] = ("product_sales", "product_sales_open")
    category: ClassVar[str] = "order"
    types: ClassVar[frozenset[str]] = LIFE
    schema: ClassVar[str] = """
    create table product_sales (
        product text primary key,
        units   bigint not null,
        cents   bigint not null
    );
    create table product_sales_open (
        order_id text collate "C" primary key,
        paid     boolean not null,
        lines    jsonb not null
    )"""
    load = "select order_id, paid, lines::text from product_sales_open where order_id = any(%s)"
    add = """
    insert into product_sales as known select * from unnest(%s::text[], %s::bigint[], %s::bigint[])
    on conflict (product) do update set units = known.units + excluded.units, cents = known.cents + excluded.cents
    """
    keep = """
    insert into product_sales_open select * from unnest(%s::text[], %s::boolean[], %s::jsonb[])
    on conflict (order_id) do update set paid = excluded.paid, lines = excluded.lines
    """

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        touched = list({change.event.stream for change in changes})
        rows = connection.execute(self.load, [touched], prepare=True)
        orders = {order: OpenOrder(paid, _lines(lines)) for order, paid, lines in rows}
        sold: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        closed = set()
        for change in changes:
            order = orders.setdefault(change.event.stream, OpenOrder())
            if order.take(change, sold):
                closed.add(change.event.stream)
        self._write(connection, orders, sold, closed)

    def _write(
        self, connection: Connection, orders: dict[str, "OpenOrder"], sold: dict[str, list[int]], closed: set[str]
    ) -> None:
        if sold:
            connection.execute(self.add, columns([(product, *sums) for product, sums in sold.items()]), prepare=True)
        if closed:
            connection.execute("delete from product_sales_open where order_id = any(%s)", [list(closed)], prepare=True)
        kept = [(ident, order.paid, text(order.lines)) for ident, order in orders.items() if ident not in closed]
        if kept:
            connection.execute(self.keep, columns(kept), prepare=True)


@dataclass(slots=True)
class OpenOrder:
    """A row of product_sales_open."""

    paid: bool = False
    lines: Lines = field(default_factory=dict)

    def take(self, change: Change, sold: dict[str, list[int]]) -> bool:
        """Note what was sold or given back; whether the order can change no more."""
        match change.type:
            case "LineAdded" | "LineRemoved":
                change_lines(self.lines, change)
            case "OrderPaid":
                self.paid = True
                self._sell(sold, 1)
            case "OrderCancelled" if self.paid:
                self._sell(sold, -1)
        return change.type in ("OrderShipped", "OrderCancelled", TOMBSTONE)

    def _sell(self, sold: dict[str, list[int]], sign: int) -> None:
        for product, (quantity, cents) in self.lines.items():
            sums = sold[product]
            sums[0] += sign * quantity
            sums[1] += sign * quantity * cents


PROJECTIONS: dict[str, Projection] = {p.name: p for p in (OrderSummary(), RevenuePerDay(), ProductSales())}


def change_lines(lines: Lines, change: Change) -> None:
    if change.type == "LineAdded":
        line = convert(change.data, Line)
        lines[line.product] = line.quantity, line.cents
    else:
        lines.pop(convert(change.data, Removed).product, None)


def text(lines: Lines) -> str:
    return _json(lines).decode()


def day_of(change: Change) -> date:
    return change.event.recorded_at.astimezone(UTC).date()


def columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]
