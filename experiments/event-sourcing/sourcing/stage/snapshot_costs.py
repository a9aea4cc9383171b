"""What snapshots cost and save: the same loads without and with one, the same commands under every frequency."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from sourcing.event import Data, NewEvent, Recorded
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository, as_stored
from sourcing.shop.account import Account
from sourcing.shop.order import Order
from sourcing.snapshots import EveryEvents, OnDemand, PostgresSnapshots
from sourcing.store import NO_STREAM

PAGE = 5_000  # events per append
TURNS = 3
BLOCK = 10  # commands at a time


def movements(count: int) -> Iterator[NewEvent]:
    """An account's events: opened, then two deposits before every withdrawal."""
    yield NewEvent("AccountOpened", {"owner": "Ada"})
    for number in range(1, count):
        yield NewEvent("Withdrawn" if number % 3 == 0 else "Deposited", {"cents": 100 + number % 7})


def lines(count: int) -> Iterator[NewEvent]:
    """An order's events: placed, then nothing but lines."""
    yield NewEvent("OrderPlaced", {"customer": "Ada"})
    for number in range(2, count + 1):
        yield NewEvent("LineAdded", {"product": f"product-{number:06d}", "quantity": 1, "cents": 1999})


def fill(store: PostgresStore, stream: str, events: Iterator[NewEvent]) -> None:
    """Append all of them to a new stream."""
    version = NO_STREAM
    while page := list(islice(events, PAGE)):
        version = store.append(stream, page, version)


class Counting:
    """A reader that counts the events."""

    def __init__(self) -> None:
        self.events = 0

    def __call__(self, event: Recorded) -> Sequence[tuple[str, Data]]:
        self.events += 1
        return tuple(as_stored(event))


@dataclass(frozen=True)
class Loads:
    """Loads of one stream, without and with a snapshot: milliseconds of each, events read by one."""

    length: int
    whole: list[float]
    short: list[float]
    read_whole: int
    read_short: int


def load(store: PostgresStore, length: int, tail: int) -> Loads:
    """Load an account of that many events in both ways, in turns; its snapshot is `tail` events or half of it back."""
    ident = f"load-{length}"
    fill(store, f"account-{ident}", movements(length))
    kept = PostgresSnapshots(store.connection, OnDemand())
    whole, short = Repository(store, Account), Repository(store, Account, snapshots=kept)
    kept.take(whole.load_at(ident, version=length - min(tail, length // 2)))
    loads = Loads(length, [], [], _read(store, ident, None), _read(store, ident, kept))
    # In turns, but some at a time: on a busy machine, what comes after a long one has to wait for the processor.
    for _ in range(TURNS):
        loads.whole.extend(timed(lambda: whole.load(ident)) for _ in range(max(2, min(30, 20_000 // length))))
        loads.short.extend(timed(lambda: short.load(ident)) for _ in range(30))
    return loads


def _read(
    store: PostgresStore, ident: str, snapshots: PostgresSnapshots | None, make: Callable[[str], Any] = Account
) -> int:
    """How many events a load reads."""
    reader = Counting()
    Repository(store, make, reader, snapshots).load(ident)
    return reader.events


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that it takes."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


@dataclass
class Commands:
    """The commands that one aggregate was given under one frequency; milliseconds of each."""

    kept: PostgresSnapshots | None  # None: no snapshots
    plain: list[float] = field(default_factory=list)
    taking: list[float] = field(default_factory=list)  # those that took a snapshot

    @property
    def ms(self) -> float:
        """Of a command on average: the medians of both kinds by their shares, so that one slow write does not count."""
        groups = [group for group in (self.plain, self.taking) if group]
        return sum(median(group) * len(group) for group in groups) / sum(map(len, groups))


@dataclass
class Workload:
    """One kind of aggregate: its past of `length` events, and the command that it is given `commands` times."""

    name: str
    make: Callable[[str], Any]
    past: Callable[[int], Iterator[NewEvent]]
    command: Callable[[Any], None]
    length: int
    commands: int
    found: dict[int, Commands] = field(default_factory=dict)  # events between two snapshots (0: none) -> what it took

    @property
    def best(self) -> int:
        return min(self.found, key=lambda every: self.found[every].ms)

    def measure(self, store: PostgresStore, frequencies: Sequence[int]) -> None:
        """The frequencies take turns, ten commands at a time: what slows one down slows all.

        Each begins half way to its next snapshot, where a command finds itself on average.
        """
        repositories = {}
        for every in (0, *frequencies):
            kept = PostgresSnapshots(store.connection, EveryEvents(every)) if every else None
            self.found[every] = Commands(kept)
            repositories[every] = Repository(store, self.make, snapshots=kept)
            fill(store, self.make(f"{self.name}-{every}").stream, self.past(self.length))
            if kept:
                past = repositories[0].load_at(f"{self.name}-{every}", version=self.length - every // 2)
                PostgresSnapshots(store.connection, OnDemand()).take(past)
        for _ in range(self.commands // BLOCK):
            for every, repository in repositories.items():
                for _ in range(BLOCK):
                    self._one(repository, every)

    def taken(self, every: int) -> int:
        """How many snapshots its commands took."""
        kept = self.found[every].kept
        return kept.taken if kept else 0

    def replayed(self, store: PostgresStore, every: int) -> int:
        """How many events a load reads, now that all commands were given."""
        return _read(store, f"{self.name}-{every}", self.found[every].kept, self.make)

    def _one(self, repository: Repository[Any], every: int) -> None:
        found = self.found[every]
        before = found.kept.taken if found.kept else 0
        ms = timed(lambda: repository.execute(f"{self.name}-{every}", self.command))
        took = found.kept is not None and found.kept.taken > before
        (found.taking if took else found.plain).append(ms)


def small_state(length: int, commands: int) -> Workload:
    """An account: three values, however many events."""
    return Workload("small", Account, movements, lambda account: account.deposit(100), length, commands)


def large_state(length: int, commands: int) -> Workload:
    """An order that has a line for nearly every event."""

    def add_line(order: Order) -> None:
        order.add_line(f"product-{order.version + 1:06d}", 1, 1999)

    return Workload("large", Order, lines, add_line, length, commands)
