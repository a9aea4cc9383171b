"""A store of orders that three programs wrote, and the questions that every way of reading them is asked."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from shared import postgres
from shared.experiment import Run
from sourcing.errors import MissingUpcaster, UnreadableEvent
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Reader, Repository
from sourcing.shop.evolved import EvolvedOrder, upcasters, upcasters_of_2021
from sourcing.stage.generations import Sale, sales
from sourcing.stage.snapshot_costs import timed
from sourcing.store import NO_STREAM
from sourcing.upcasting import Upcasters
from sourcing.wrong.misreading import Total

ROWS = "select id, type, schema_version, data, metadata from events order by xid, position"
CONTENT = "select stream, version, id, type, schema_version, data, metadata, recorded_at from events order by 1, 2"


@dataclass(frozen=True)
class Shop:
    """The store, and what was sold."""

    store: PostgresStore
    sold: tuple[Sale, ...]

    @classmethod
    def open(cls, store: PostgresStore, seed: int, count: int, lines: int) -> "Shop":
        """Fill an empty store with `count` orders of `lines` lines."""
        made = sales(seed, count, lines)
        for sale, events in made:
            store.append(sale.stream, events, NO_STREAM)
        return cls(store, tuple(sale for sale, _ in made))

    @property
    def begun_in_2019(self) -> int:
        """How many orders have lines of 2019."""
        row = self.store.connection.execute("select count(*) from events where type = 'OrderCreated'").fetchone()
        return int(row[0]) if row else 0

    def right(self, read: Reader, store: PostgresStore | None = None) -> int:
        """How many orders fold to what was sold; by this store's events, or by those of another one."""
        repository = Repository(store or self.store, EvolvedOrder, read)
        return sum(repository.load(sale.id).state() == sale.state for sale in self.sold)

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


def open_shop(run: Run, conninfo: str, count: int, lines: int) -> Shop:
    """A shop in an empty schema."""
    create(conninfo)
    return Shop.open(connect(run, conninfo), run.seed, count, lines)


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


def content(store: PostgresStore) -> list[tuple[object, ...]]:
    """All events of a store, to be compared with another one's."""
    return store.connection.execute(CONTENT).fetchall()
