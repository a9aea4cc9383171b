"""Orders as the programs of three generations wrote them, with the truth about each beside them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.faults import Crash
from shared.history import Recorder
from shared.postgres import connect
from sourcing.event import Data, NewEvent
from sourcing.evolution.rewriting import Window, rewrite
from sourcing.postgres import PostgresStore
from sourcing.shop.evolved import EvolvedOrder, upcasters

PRODUCTS = tuple(f"product-{number:03d}" for number in range(200))


@dataclass(frozen=True)
class Sale:
    """What was sold: the truth that every reader is held against. Money in cents."""

    id: str
    customer: str
    lines: tuple[tuple[str, int, int], ...]  # (product, quantity, cents of one)
    currency: str
    carrier: str

    @property
    def stream(self) -> str:
        return f"order-{self.id}"

    @property
    def total(self) -> int:
        return sum(quantity * cents for _, quantity, cents in self.lines)

    @property
    def state(self) -> Data:
        """What the fold of its events must come to."""
        return {
            "customer": self.customer,
            "currency": self.currency,
            "lines": {product: [quantity, cents] for product, quantity, cents in self.lines},
            "paid": self.total,
            "carrier": self.carrier,
        }


def sales(seed: int, count: int, lines: int) -> list[tuple[Sale, list[NewEvent]]]:
    """Sales of `lines` lines each, and their events: a third by the program of each year, some begun by an older one.

    Only the last program sells abroad, every second time.
    """
    rng = random.Random(seed)  # noqa: RUF100, S311
    made = []
    for number in range(count):
        began, ended = ((2019, 2019), (2021, 2021), (2024, 2024), (2019, 2021), (2019, 2024), (2021, 2024))[number % 6]
        sale = _sale(rng, number, lines, abroad=number % 12 == 2)
        made.append((sale, [*opened(began, sale), *closed(ended, sale)]))
    return made


def opened(year: int, sale: Sale) -> Iterator[NewEvent]:
    """The events up to the last line, as the program of that year wrote them."""
    if year == 2019:
        yield NewEvent("OrderCreated", {"customer": sale.customer})
        yield NewEvent("OrderViewed", {"page": "/orders"})
        for product, quantity, cents in sale.lines:
            yield NewEvent("LineAdded", {"product": product, "quantity": quantity, "price": cents / 100})
    elif year == 2021:
        yield NewEvent("OrderPlaced", {"customer": sale.customer})
        for product, quantity, cents in sale.lines:
            yield NewEvent("LineAdded", {"product": product, "quantity": quantity, "cents": cents}, 2)
    else:
        yield from _today(sale)[: len(sale.lines) + 1]


def closed(year: int, sale: Sale) -> Iterator[NewEvent]:
    """The events after the last line, likewise."""
    if year == 2019:
        yield NewEvent("OrderPaidAndShipped", {"price": sale.total / 100, "carrier": sale.carrier})
    elif year == 2021:
        yield NewEvent("OrderPaid", {"cents": sale.total})
        yield NewEvent("OrderShipped", {"carrier": sale.carrier})
    else:
        yield from _today(sale)[len(sale.lines) + 1 :]


def rewrite_and_die(source: str, target: str, batch: int, history: Path, window: Window, nth: int) -> None:
    """Rewrite in a process of its own (two conninfo URLs) that is killed in the window at its nth batch."""
    with connect(source) as old, connect(target) as new, Recorder(history, "rewriting") as recorder:
        rewrite(PostgresStore(old), new, upcasters(), batch, Crash(recorder, window, nth))


def _today(sale: Sale) -> list[NewEvent]:
    order = EvolvedOrder(sale.id)
    order.place(sale.customer)
    for product, quantity, cents in sale.lines:
        order.add_line(product, quantity, cents, sale.currency)
    order.pay()
    order.ship(sale.carrier)
    return order.uncommitted


def _sale(rng: random.Random, number: int, lines: int, abroad: bool) -> Sale:
    chosen = tuple((product, rng.randint(1, 5), rng.randint(1, 9_999)) for product in rng.sample(PRODUCTS, lines))
    carrier = rng.choice(("DHL", "Posten", "UPS"))
    return Sale(f"{number:05d}", f"customer-{rng.randrange(1000):03d}", chosen, "SEK" if abroad else "EUR", carrier)
