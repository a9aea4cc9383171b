"""Orders as the programs of three generations wrote them, with the truth about each beside them."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared import postgres
from shared.experiment import Run
from shared.faults import Crash
from shared.history import Recorder
from shared.postgres import number
from sourcing.errors import MissingUpcaster, UnreadableEvent
from sourcing.event import Data, NewEvent
from sourcing.evolution.rewriting import Window, prepare, rewrite
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Reader, Repository
from sourcing.shop.evolved import EvolvedOrder, upcasters, upcasters_of_2021
from sourcing.stage.snapshot_costs import timed
from sourcing.store import NO_STREAM
from sourcing.upcasting import Upcasters
from sourcing.wrong.misreading import Total

PRODUCTS = tuple(f"product-{number:03d}" for number in range(200))
ROWS = "select id, type, schema_version, data, metadata from events order by xid, position"
CONTENT = "select stream, version, id, type, schema_version, data, metadata, recorded_at from events order by 1, 2"


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
    rng = random.Random(seed)
    made = []
    for n in range(count):
        began, ended = ((2019, 2019), (2021, 2021), (2024, 2024), (2019, 2021), (2019, 2024), (2021, 2024))[n % 6]
        sale = _sale(rng, n, lines, abroad=n % 12 == 2)
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


def _today(sale: Sale) -> list[NewEvent]:
    order = EvolvedOrder(sale.id)
    order.place(sale.customer)
    for product, quantity, cents in sale.lines:
        order.add_line(product, quantity, cents, sale.currency)
    order.pay()
    order.ship(sale.carrier)
    return order.uncommitted


def _sale(rng: random.Random, n: int, lines: int, abroad: bool) -> Sale:
    chosen = tuple((product, rng.randint(1, 5), rng.randint(1, 9_999)) for product in rng.sample(PRODUCTS, lines))
    carrier = rng.choice(("DHL", "Posten", "UPS"))
    return Sale(f"{n:05d}", f"customer-{rng.randrange(1000):03d}", chosen, "SEK" if abroad else "EUR", carrier)


# What is asked of them.


@dataclass(frozen=True)
class Archive:
    """A store of orders that three programs wrote, what was sold, and what every way of reading them is asked."""

    store: PostgresStore
    sold: tuple[Sale, ...]

    @classmethod
    def open(cls, store: PostgresStore, seed: int, count: int, lines: int) -> "Archive":
        """Fill an empty store with `count` orders of `lines` lines."""
        made = sales(seed, count, lines)
        for sale, events in made:
            store.append(sale.stream, events, NO_STREAM)
        return cls(store, tuple(sale for sale, _ in made))

    @property
    def begun_in_2019(self) -> int:
        """How many orders have lines of 2019."""
        return number(self.store.connection, "select count(*) from events where type = 'OrderCreated'")

    def right(self, read: Reader) -> int:
        """How many orders fold to what was sold."""
        repository = Repository(self.store, EvolvedOrder, read)
        return sum(repository.load(sale.id).state() == sale.state for sale in self.sold)

    def beside(self, run: Run, conninfo: str) -> "Archive":
        """Where these orders are to be rewritten to: an empty store in an empty schema."""
        prepare(conninfo)
        return Archive(connect(run, conninfo), self.sold)

    @property
    def begun_and_ended_in_2019(self) -> Sequence[Sale]:
        return self.sold[0::6]

    @property
    def of_2024(self) -> Sequence[Sale]:
        """Begun and ended in that year."""
        return self.sold[2::6]

    @property
    def size(self) -> int:
        """Bytes of the events on the disk, indexes included."""
        return number(self.store.connection, "select pg_total_relation_size('events')")

    def misread(self, way: Total) -> list[int | None]:
        """The totals in cents as that reader has them; None: it crashed."""
        return [self._total(sale, way) for sale in self.sold]

    def unreadable(self, make: type[EvolvedOrder]) -> int:
        """How many orders cannot be loaded by that aggregate."""
        repository = Repository(self.store, make, upcasters())
        return sum(not self._loads(repository, sale) for sale in self.sold)

    def readable_in_2021(self) -> int:
        """How many orders the program of 2021 can read: of the others, an event is too new for it."""
        return sum(self._reads(sale, upcasters_of_2021()) for sale in self.sold)

    def digest(self) -> str:
        """What an auditor notes: a hash of every stored event, in their order."""
        hashed = hashlib.sha256()
        for row in self.store.connection.execute(ROWS):
            hashed.update(repr(row).encode())
        return hashed.hexdigest()

    def content(self) -> list[tuple[object, ...]]:
        """All events, to be compared with another store's."""
        return self.store.connection.execute(CONTENT).fetchall()

    def _total(self, sale: Sale, way: Total) -> int | None:
        try:
            return way(self.store.read(sale.stream))
        except KeyError:
            return None

    def _loads(self, repository: Repository[EvolvedOrder], sale: Sale) -> bool:
        try:
            return repository.load(sale.id).version > 0
        except UnreadableEvent:
            return False

    def _reads(self, sale: Sale, read: Reader) -> bool:
        try:
            for event in self.store.read(sale.stream):
                read(event)
        except MissingUpcaster:
            return False
        return True


def connect(run: Run, conninfo: str) -> PostgresStore:
    """A store on a connection that lasts as long as the run."""
    return PostgresStore(run.stack_of_things.enter_context(postgres.connect(conninfo)))


def open_archive(run: Run, conninfo: str, count: int, lines: int) -> Archive:
    """An archive in an empty schema."""
    create(conninfo)
    return Archive.open(connect(run, conninfo), run.seed, count, lines)


def load_in_turns(
    ways: Mapping[str, tuple[Repository[EvolvedOrder], Iterable[Sale]]], steps: Upcasters, rounds: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Load these orders in these ways; returns of each way the milliseconds of every load, and the steps taken."""
    samples: dict[str, list[float]] = {way: [] for way in ways}
    taken = dict.fromkeys(ways, 0)
    for _ in range(rounds):
        for way, (repository, chosen) in ways.items():
            before = steps.taken
            samples[way] += [timed(partial(repository.load, sale.id)) for sale in chosen]
            taken[way] += steps.taken - before
    return samples, taken


def rewrite_and_die(source: str, target: str, batch: int, history: Path, window: Window, nth: int) -> None:
    """Rewrite in a process of its own (two conninfo URLs) that is killed in the window at its nth batch."""
    with postgres.connect(source) as old, postgres.connect(target) as new, Recorder(history, "rewriting") as recorder:
        rewrite(PostgresStore(old), new, upcasters(), batch, Crash(recorder, window, nth))
