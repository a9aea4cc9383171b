"""The invariant at rest, over all four services: every order complete everywhere, or undone everywhere it was begun."""

from dataclasses import dataclass, field
from enum import StrEnum

from saga.services.shop import Shop
from shared import postgres

STATES = {
    "orders": "select id, status from orders",
    "stock": "select order_id, status from reservations",
    "payments": "select order_id, status from charges",
    "shipping": "select order_id, status from shipments",
}
DONE = {"orders": "placed", "stock": "reserved", "payments": "charged", "shipping": "shipped"}


class Ending(StrEnum):
    """How an order stands."""

    COMPLETE = "complete"
    COMPENSATED = "compensated"
    INCONSISTENT = "inconsistent"


@dataclass(frozen=True)
class Standing:
    """What the services say of all orders, and what is wrong with it."""

    endings: dict[str, Ending]
    violations: list[str] = field(default_factory=list)

    def count(self, ending: Ending) -> int:
        return sum(found == ending for found in self.endings.values())


def judge(shop: Shop) -> Standing:
    """Read all four services, when no saga runs any more. An order that nobody has begun is not in it."""
    states: dict[str, dict[str, str]] = {}
    for service, query in STATES.items():
        with postgres.connect(shop.conninfos[service]) as connection:
            states[service] = dict(connection.execute(query).fetchall())
    orders = sorted(set().union(*states.values()))
    endings = {order: _ending({service: found.get(order) for service, found in states.items()}) for order in orders}
    broken = [f"{order}: {_said(states, order)}" for order in orders if endings[order] is Ending.INCONSISTENT]
    return Standing(endings, broken + _money(shop) + _pieces(shop))


def _ending(states: dict[str, str | None]) -> Ending:
    if all(states[service] == done for service, done in DONE.items()):
        return Ending.COMPLETE
    if not any(states[service] == done for service, done in DONE.items()):
        return Ending.COMPENSATED
    return Ending.INCONSISTENT


def _said(states: dict[str, dict[str, str]], order: str) -> str:
    return ", ".join(f"{service} {found.get(order, 'nothing')}" for service, found in states.items())


def _money(shop: Shop) -> list[str]:
    """Money is conserved, nobody is charged twice, and nobody refunded twice or unduly."""
    with postgres.connect(shop.conninfos["payments"]) as connection:
        (held,) = connection.execute("select coalesce(sum(cents), 0)::bigint from accounts").fetchone() or (0,)
        (kept,) = connection.execute(
            "select coalesce(sum(cents * (charged - refunded)), 0)::bigint from charges"
        ).fetchone() or (0,)
        twice = connection.execute(
            "select order_id, charged, refunded from charges where charged > 1 or refunded > 1"
            " or (refunded = 1) <> (status = 'refunded')"
        ).fetchall()
    total = shop.world.balance * shop.world.customers
    wrong = [f"money: {held} in accounts and {kept} kept are not {total}"] if held + kept != total else []
    return wrong + [f"{order}: charged {charged}, refunded {refunded} times" for order, charged, refunded in twice]


def _pieces(shop: Shop) -> list[str]:
    with postgres.connect(shop.conninfos["stock"]) as connection:
        (left,) = connection.execute("select coalesce(sum(pieces), 0)::bigint from products").fetchone() or (0,)
        (taken,) = connection.execute(
            "select coalesce(sum(quantity), 0)::bigint from reservations where status = 'reserved'"
        ).fetchone() or (0,)
    total = shop.world.pieces * shop.world.products
    return [f"stock: {left} left and {taken} reserved are not {total}"] if left + taken != total else []
