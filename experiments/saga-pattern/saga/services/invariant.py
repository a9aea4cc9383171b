"""The invariant at rest, over all four services: every order complete everywhere, or undone everywhere it was begun."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import LiteralString

from saga.services.shop import Shop
from shared.postgres import Connection

STATES = {
    "orders": "select id, status from orders",
    "stock": "select order_id, status from reservations",
    "payments": "select order_id, status from charges",
    "shipping": "select order_id, status from shipments",
}
DONE = {"orders": "placed", "stock": "reserved", "payments": "charged", "shipping": "shipped"}

ACCOUNTS = "select customer, cents from accounts"
KEPT = "select customer, sum(cents * (charged - refunded))::bigint from charges group by customer"
TWICE = """
select order_id, charged, refunded from charges
where charged > 1 or refunded > 1 or (refunded = 1) <> (status = 'refunded')
"""
BOOKED = {
    "stock": "select order_id, product, quantity from reservations",
    "payments": "select order_id, customer, cents from charges",
}
PRODUCTS = "select name, pieces from products"
TAKEN = "select product, sum(quantity)::bigint from reservations where status = 'reserved' group by product"
Counts = Mapping[str, int]
States = dict[str, dict[str, str]]  # service -> order -> its status there


class Ending(StrEnum):
    """How an order stands."""

    COMPLETE = "complete"
    COMPENSATED = "compensated"
    INCONSISTENT = "inconsistent"


@dataclass(frozen=True)
class Standing:
    """What the services say of all orders, and what is wrong with it."""

    endings: dict[str, Ending]
    half_done: list[str]  # orders, each with its states in the services
    wrong: list[str]  # with money, pieces, or what is kept for an order: also of an order that is complete or waits

    @property
    def violations(self) -> list[str]:
        return self.half_done + self.wrong

    @property
    def complete(self) -> set[str]:
        return self.of(Ending.COMPLETE)

    @property
    def compensated(self) -> set[str]:
        return self.of(Ending.COMPENSATED)

    @property
    def inconsistent(self) -> set[str]:
        return self.of(Ending.INCONSISTENT)

    def of(self, ending: Ending) -> set[str]:
        """The orders that stand so."""
        return {order for order, found in self.endings.items() if found is ending}

    def count(self, ending: Ending) -> int:
        return len(self.of(ending))


def judge(shop: Shop) -> Standing:
    """Read all four services, when no saga runs any more. An order that nobody has begun is not in it."""
    with shop.open() as services:
        at = services.connections
        states: States = {service: dict(at[service].execute(query).fetchall()) for service, query in STATES.items()}
        wrong = [*_money(shop, at["payments"]), *_pieces(shop, at["stock"]), *_amounts(at)]
    orders = sorted(set().union(*states.values()))
    endings = {order: _ending({service: found.get(order) for service, found in states.items()}) for order in orders}
    half = [f"{order}: {_said(states, order)}" for order in orders if endings[order] is Ending.INCONSISTENT]
    return Standing(endings, half, wrong)


def _ending(states: dict[str, str | None]) -> Ending:
    if all(states[service] == done for service, done in DONE.items()):
        return Ending.COMPLETE
    if not any(states[service] == done for service, done in DONE.items()):
        return Ending.COMPENSATED
    return Ending.INCONSISTENT


def _said(states: States, order: str) -> str:
    return ", ".join(f"{service} {found.get(order, 'nothing')}" for service, found in states.items())


def _money(shop: Shop, payments: Connection) -> Iterator[str]:
    """No customer gains or loses, nobody is charged twice, and nobody refunded twice or unduly."""
    opening = dict.fromkeys(shop.world.customer_names(), shop.world.balance)
    for said in _off(opening, _counts(payments, ACCOUNTS), _counts(payments, KEPT)):
        yield f"money: {said}"
    for order, charged, refunded in payments.execute(TWICE).fetchall():
        yield f"{order}: charged {charged}, refunded {refunded} times"


def _pieces(shop: Shop, stock: Connection) -> Iterator[str]:
    opening = dict.fromkeys(shop.world.product_names(), shop.world.pieces)
    for said in _off(opening, _counts(stock, PRODUCTS), _counts(stock, TAKEN)):
        yield f"stock: {said}"


def _amounts(at: Mapping[str, Connection]) -> Iterator[str]:
    """What is reserved and charged for an order is what was ordered, and by whom."""
    rows = at["orders"].execute("select id, product, quantity, customer, cents from orders").fetchall()
    ordered = {order: ((product, pieces), (customer, cents)) for order, product, pieces, customer, cents in rows}
    for number, (service, query) in enumerate(BOOKED.items()):
        for order, *kept in at[service].execute(query).fetchall():
            if order in ordered and ordered[order][number] != tuple(kept):
                yield f"{order}: {kept} in {service}, but {list(ordered[order][number])} was ordered"


def _counts(connection: Connection, query: LiteralString) -> Counts:
    return dict(connection.execute(query).fetchall())


def _off(opening: Counts, now: Counts, gone: Counts) -> Iterator[str]:
    """Where what there is, and what is gone by right, are not what there was."""
    for name in sorted({*opening, *now, *gone}):
        there, away, before = (counts.get(name, 0) for counts in (now, gone, opening))
        if there + away != before:
            yield f"{name} has {there} and gave {away}, not {before} together"
