"""The event store against a bare insert, and against the `eventsourcing` library: one run, one JSON object.

All of them on one Postgres of the run's own with nothing else on it. Contenders take turns, and turn about: what else
the machine does hits them alike. Their events (about 150 bytes of JSON) are ready in memory before the clock starts,
processes connected and warm. A reader tails every append, each contender's by its own way of reading, and must see all
events once and in order.
"""

import json
import multiprocessing
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from sourcing.stage.contenders import Kind, Table
from sourcing.stage.races import Race, fill, tail, time_projections, time_reads, write
from sourcing.stage.targets import TARGETS

from shared import postgres
from shared.run import Run
from shared.targets import Benchmark

experiment = Benchmark(
    title="The event store against a bare insert and the eventsourcing library",
    targets=TARGETS,
    quick="fewer rounds: under two minutes",
)
# Writers, and how many times the rounds they race a bare insert alone: the more writers, the more a round's ratio
# wobbles, and the median of all of them is to be stable within 3 %.
WRITERS = {1: 2, 8: 4, 32: 9}
# Events of one heat by all of its writers: about half a second.
EVENTS = {Kind.BARE: 3200, Kind.STORE: 3200, Kind.PEER: 640}
BATCH, BATCHED = 100, {Kind.STORE: 40_000, Kind.PEER: 10_000}
LOADED = 1000, 10_000
ACCOUNTS, EACH = 1000, 100  # what is read besides
ALONE = 4000  # events projected one by one


@dataclass
class Bench:
    """The run's tables, and what its readers did not see as it was."""

    run: Run
    tables: Mapping[Kind, Table]
    missed: list[int] = field(default_factory=list)
    files: int = 0

    def path(self) -> Path:
        self.files += 1
        return self.run.folder / f"result-{self.files}.json"


@experiment.run
def main(run: Run) -> None:
    bench = set_up(run)
    rounds = run.pick(1, 7, 31)
    for writers in WRITERS:
        compare_appends(bench, writers, rounds)
    compare_batches(bench, rounds)
    with run.step(f"fill with {ACCOUNTS:,} accounts of {EACH} events, and the long ones"):
        loads, total = fill_both(bench)
    with run.step(f"load accounts of {LOADED[0]:,} and {LOADED[1]:,} events; read and decode {total:,}"):
        compare_reads(bench, loads, total, run.pick(1, 7, 25))
    with run.step("project into a table, in batches and one by one"):
        compare_projections(bench, total, run.pick(1, 5, 15))
    run.figure("missed", sum(bench.missed), "events", runs=len(bench.missed))
    experiment.claim_targets(run)


def set_up(run: Run) -> Bench:
    url = run.own("postgres").endpoint
    tables = {kind: Table(kind, url.url, f"{run.name}_{kind.name.lower()}") for kind in Kind}
    for table in tables.values():
        postgres.create_schema(url, table.schema)
        table.create()
    run.parameters.update({"batch": BATCH, "accounts": ACCOUNTS, "events of an account": EACH})
    return Bench(run, tables)


def compare_appends(bench: Bench, writers: int, rounds: int) -> None:
    with bench.run.step(f"{writers} writing: {', '.join(EVENTS)} in turn, {rounds} rounds"):
        rates = run_race(bench, EVENTS, writers, 1, rounds)
    for kind in EVENTS:
        bench.run.figure("appends", rates[kind], "events/s", variant=kind, x=float(writers), x_label="writers")
    compare(bench, f"append_{writers}_vs_peer", rates[Kind.STORE], rates[Kind.PEER])
    two, more = {kind: EVENTS[kind] for kind in (Kind.BARE, Kind.STORE)}, rounds * WRITERS[writers]
    with bench.run.step(f"{writers} writing: {', '.join(two)} in turn, {more} rounds"):
        rates = run_race(bench, two, writers, 1, more)
    compare(bench, f"append_{writers}_vs_insert", rates[Kind.STORE], rates[Kind.BARE])


def compare_batches(bench: Bench, rounds: int) -> None:
    with bench.run.step(f"one writing batches of {BATCH}: {', '.join(BATCHED)} in turn, {rounds} rounds"):
        rates = run_race(bench, BATCHED, 1, BATCH, rounds)
    for kind in BATCHED:
        bench.run.figure(f"appends in batches of {BATCH}", rates[kind], "events/s", variant=kind)
    compare(bench, "batch100_vs_peer", rates[Kind.STORE], rates[Kind.PEER])


def run_race(
    bench: Bench, events: Mapping[Kind, int], writers: int, batch: int, rounds: int
) -> dict[Kind, list[float]]:
    """Events per second of each kind by all writers, per round, from the first one's start to the last one's end."""
    tables = [bench.tables[kind] for kind in events]
    for table in tables:
        clear(table)
    each = {kind: count // writers for kind, count in events.items()}
    race = Race(f"{writers}-{batch}", tables, each, writers, rounds, batch)
    start = multiprocessing.get_context("forkserver").Barrier(writers + 1)
    reading, results = bench.path(), [bench.path() for _ in range(writers)]
    workers = [bench.run.worker("reader", tail, race, start, reading)]
    workers += [bench.run.worker("writer", write, race, number, start, to) for number, to in enumerate(results)]
    for worker in workers:
        worker.wait(600)
    bench.missed.append(json.loads(reading.read_text()))
    rates: dict[Kind, list[float]] = {kind: [] for kind in events}
    for heat in zip(*(json.loads(result.read_text()) for result in results), strict=True):
        kinds, began, ended = zip(*heat, strict=True)
        rates[Kind(kinds[0])].append(writers * each[Kind(kinds[0])] / (max(ended) - min(began)))
    return {kind: found[1:] for kind, found in rates.items()}


def clear(table: Table) -> None:
    """Empty, and all that was written before on the disk: nobody pays for another's pages."""
    with postgres.connect(table.conninfo) as connection:
        connection.execute(f"truncate {table.name}")
        connection.execute("checkpoint")
    os.sync()


def fill_both(bench: Bench) -> tuple[dict[int, UUID], int]:
    """The same accounts into store and peer; returns those to be loaded, by length, and how many events there are."""
    loads = {length: uuid4() for length in LOADED}
    lengths = {**{uuid4(): EACH for _ in range(ACCOUNTS)}, **{account: length for length, account in loads.items()}}
    for table in (bench.tables[Kind.STORE], bench.tables[Kind.PEER]):
        clear(table)
        bench.run.worker("filler", fill, table, lengths).wait(300)
        with postgres.connect(table.conninfo) as connection:
            connection.execute(f"vacuum analyze {table.name}")
    return loads, sum(lengths.values())


def compare_reads(bench: Bench, loads: Mapping[int, UUID], total: int, rounds: int) -> None:
    result, tables = bench.path(), [bench.tables[Kind.STORE], bench.tables[Kind.PEER]]
    bench.run.worker("loader", time_reads, tables, loads, total, rounds, result).wait(600)
    seconds = json.loads(result.read_text())
    for kind in (Kind.STORE, Kind.PEER):
        for length in LOADED:
            taken = [1000 * found for found in seconds[f"load {length}"][kind]]
            bench.run.figure("load", taken, "ms", variant=kind, x=float(length), x_label="events")
        rates = [total / found for found in seconds["read all"][kind]]
        bench.run.figure("read all, decoded", rates, "events/s", variant=kind)
    for action in (*(f"load {length}" for length in LOADED), "read all"):
        name = f"{action.replace(' ', '_')}_vs_peer"
        compare(bench, name, seconds[action][Kind.PEER], seconds[action][Kind.STORE])


def compare_projections(bench: Bench, total: int, rounds: int) -> None:
    result = bench.path()
    bench.run.worker("projector", time_projections, bench.tables[Kind.STORE], total, ALONE, rounds, result).wait(300)
    rates = json.loads(result.read_text())
    for variant in ("in batches", "one by one"):
        bench.run.figure("projection", rates[variant], "events/s", variant=variant)
    compare(bench, "projection_vs_per_event", rates["in batches"], rates["one by one"])


def compare(bench: Bench, name: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """How many times theirs is ours, round by round: the median is the figure."""
    figure = bench.run.figure(name, [mine / other for mine, other in zip(ours, theirs, strict=True)], "x")
    bench.run.output.say(
        f"{name}: {figure.value:.3g}, {statistics.median(ours):,.4g} to {statistics.median(theirs):,.4g}"
    )


if __name__ == "__main__":
    experiment.main()
