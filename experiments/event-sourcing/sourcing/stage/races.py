"""What the benchmark's processes do: write, tail, fill, load and read, project."""

import gc
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from operator import methodcaller
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from shared.postgres import Connection, connect
from sourcing.event import START, data_of
from sourcing.postgres import PostgresStore
from sourcing.projection import Change, Projection, Projector, install
from sourcing.stage.contenders import PAGE, Contender, Kind, Seen, Table, balance

PAUSE = 0.01  # seconds between two looks of a reader that has caught up
TOGETHER = 60.0  # seconds until all processes of a race must stand at a start
PATIENCE = 10.0  # seconds without an event after which a reader takes what it has not seen for missed

PROJECT_ONE = """
insert into balances as known values (%s, %s, 1)
on conflict (account) do update set cents = known.cents + excluded.cents, movements = known.movements + 1
"""
PROJECT_MANY = """
insert into balances as known select * from unnest(%s::text[], %s::bigint[], %s::bigint[])
on conflict (account)
do update set cents = known.cents + excluded.cents, movements = known.movements + excluded.movements
"""


@dataclass(frozen=True)
class Race:
    """Some processes write at once, on streams of their own, first for one contender and then for the next, in rounds.

    The first round warms up: statements prepared, plans chosen, pages there.
    """

    name: str
    tables: Sequence[Table]
    each: Mapping[Kind, int]  # events of one writer in one heat
    writers: int
    rounds: int
    batch: int = 1

    def heats(self) -> Iterator[tuple[int, Table]]:
        """(round, whose turn it is)."""
        for number in range(self.rounds + 1):
            for table in in_turn(self.tables, number):
                yield number, table

    def account(self, number: int, kind: Kind, writer: int) -> UUID:
        """What the writer writes to in that heat."""
        return uuid5(NAMESPACE_URL, f"{self.name}/{kind}/{number}/{writer}")

    def counts(self, number: int, kind: Kind) -> dict[str, int]:
        """What a reader must see of that heat."""
        return {str(self.account(number, kind, writer)): self.each[kind] for writer in range(self.writers)}


def write(race: Race, writer: int, start: Barrier, result: Path) -> None:
    """Append as fast as it goes; writes to `result` a [kind, began, ended] per heat, by the machine's clock."""
    contenders = {table.kind: table.open() for table in race.tables}
    spans: list[tuple[Kind, float, float]] = []
    for number, table in race.heats():
        kind, append = table.kind, contenders[table.kind].append
        batches = contenders[kind].ready(race.account(number, kind, writer), race.each[kind], race.batch)
        # What lies ready would not do so in a service: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        start.wait(TOGETHER)
        began = time.monotonic()
        for batch in batches:
            append(batch)
        spans.append((kind, began, time.monotonic()))
        gc.unfreeze()
    result.write_text(json.dumps(spans))


def tail(race: Race, start: Barrier, result: Path) -> None:
    """Read along in every heat; writes to `result` how many events did not come once and in order."""
    contenders = {table.kind: table.open() for table in race.tables}
    places: dict[Kind, Any] = dict.fromkeys(contenders)
    wrong = 0
    for number, table in race.heats():
        counts = race.counts(number, table.kind)
        start.wait(TOGETHER)
        seen, places[table.kind] = follow(contenders[table.kind], places[table.kind], counts)
        wrong += wrongly_seen(seen, counts)
    result.write_text(json.dumps(wrong))


def follow(contender: Contender, after: Any, counts: Mapping[str, int]) -> tuple[list[Seen], Any]:
    """What a reader sees of these accounts from a place on, until it has as many as were written, or none come."""
    seen: list[Seen] = []
    total, last = sum(counts.values()), time.monotonic()
    while len(seen) < total and time.monotonic() - last < PATIENCE:
        page, after = contender.page(after)
        seen += [found for found in page if found[0] in counts]
        if page:
            last = time.monotonic()
        if len(page) < PAGE:
            time.sleep(PAUSE)
    return seen, after


def wrongly_seen(seen: Iterable[Seen], counts: Mapping[str, int]) -> int:
    """How many of the accounts' events (`counts` of each) were missed, or came again or late."""
    missing = {(account, version) for account, count in counts.items() for version in range(1, count + 1)}
    latest: dict[str, int] = {}
    late = 0
    for account, version in seen:
        missing.discard((account, version))
        late += version <= latest.get(account, 0)
        latest[account] = max(version, latest.get(account, 0))
    return len(missing) + late


def fill(table: Table, lengths: Mapping[UUID, int]) -> None:
    """Accounts of these many events."""
    contender = table.open()
    for account, count in lengths.items():
        for batch in contender.ready(account, count, 1000):
            contender.append(batch)


def time_reads(tables: Sequence[Table], loads: Mapping[int, UUID], total: int, rounds: int, result: Path) -> None:
    """Loads by number of events, and reads of all `total` events, in turn; writes {action: {kind: seconds}}.

    The first round warms up. Raises ValueError if anything that was loaded or read is not what was written.
    """
    contenders = {table.kind: table.open() for table in tables}
    actions: dict[str, tuple[Callable[[Contender], int], int]] = {"read all": (methodcaller("read_all"), total)}
    for count, account in loads.items():
        actions[f"load {count}"] = methodcaller("load", account), balance(count)
    seconds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in contenders} for name in actions}
    for number in range(rounds + 1):
        for name, (action, expected) in actions.items():
            for kind, contender in in_turn(contenders.items(), number):
                began = time.perf_counter()
                found = action(contender)
                if number:
                    seconds[name][kind].append(time.perf_counter() - began)
                if found != expected:
                    raise ValueError(f"{kind}: {name} gave {found}, not {expected}")
    result.write_text(json.dumps(seconds))


def time_projections(table: Table, total: int, alone: int, rounds: int, result: Path) -> None:
    """Events per second into a read model, all `total` in batches and `alone` one by one: {variant: rates}.

    Raises ValueError if they are not all in it.
    """
    variants = [("in batches", in_batches, total), ("one by one", one_by_one, alone)]
    rates: dict[str, list[float]] = {variant: [] for variant, _, _ in variants}
    with connect(table.conninfo) as connection:
        for number in range(rounds):
            for variant, project, count in in_turn(variants, number):
                connection.execute("drop table if exists balances, checkpoints, parked_events")
                install(connection, Totals())
                began = time.perf_counter()
                project(connection, count)
                rates[variant].append(count / (time.perf_counter() - began))
                # Every account has been opened, once, and had its deposits.
                row = connection.execute("select sum(movements) + count(*) from balances").fetchone()
                if row != (count,):
                    raise ValueError(f"{variant}: {row} events are in the read model, not {count}")
    result.write_text(json.dumps(rates))


class Totals(Projection):
    """One row per account."""

    name = "balances"
    tables = ("balances",)
    schema = "create table balances (account text primary key, cents bigint not null, movements bigint not null)"
    category = "account"
    types = frozenset({"AccountOpened", "Deposited"})

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        movements: defaultdict[str, list[int]] = defaultdict(list)
        for change in changes:
            if change.type == "Deposited":
                movements[change.event.stream].append(change.data["cents"])
        values = [list(movements), [sum(cents) for cents in movements.values()], [*map(len, movements.values())]]
        connection.execute(PROJECT_MANY, values, prepare=True)


def in_batches(connection: Connection, count: int) -> None:
    """As the lab does it: a page of events, its part of the read model and the checkpoint in one transaction."""
    Projector(connection, Totals(), batch=PAGE).catch_up()


def one_by_one(connection: Connection, count: int) -> None:
    """An upsert and a commit per event, not even a checkpoint."""
    store, after = PostgresStore(connection), START
    while page := store.read_all(after, min(PAGE, count)):
        after, count = page[-1].place, count - len(page)
        for event in page:
            if event.type == "Deposited":
                connection.execute(PROJECT_ONE, [event.stream, data_of(event)["cents"]], prepare=True)


def in_turn(things: Iterable[Any], number: int) -> list[Any]:
    """This way in one round, the other way in the next: nobody is always first."""
    return list(things)[:: -1 if number % 2 else 1]
