"""The figures of an engine: what it did while nothing failed in the services, and what they are called in a record."""

from dataclasses import dataclass
from functools import partial

from saga.stage.contenders import Contender
from saga.stage.measuring import Load, Usage
from shared.run import Run

GOES_ON = "goes on when one of its workers stays dead"


@dataclass(frozen=True)
class Timed:
    """What one engine did while nothing failed in the services."""

    load: Load
    took: Usage  # by its processes, of which server they may be: CPU and writes for the load, memory after it
    database: Usage  # by Postgres, likewise
    flushes: float  # of Postgres' log to the disk, per saga
    log: float  # of Postgres, kB per saga


@dataclass(frozen=True)
class Alone:
    """What it did with a saga at a time, and when workers were killed."""

    spent: list[float]  # ms
    back: list[float]  # s from kill -9 of all workers, started again at once, to the end of the last saga
    goes_on: bool | None  # with one worker fewer; None: not tried


def note(run: Run, contender: Contender, timed: Timed) -> None:
    figure, count = partial(run.figure, variant=contender.name), len(timed.load.ended)
    figure("sagas", timed.load.rate, "sagas/s", at_once=contender.at_once)
    among = figure("a saga among others", timed.load.milliseconds, "ms", at_once=contender.at_once)
    figure("99 of 100 sagas among others within", among.p99 or among.value, "ms", at_once=contender.at_once)
    figure("CPU time of the engine", 1000 * timed.took.cpu / count, "ms per saga")
    figure("written by the engine's processes", timed.took.written / count, "kB per saga")
    figure("memory of the engine (PSS: what processes share counts once)", timed.took.memory, "MB")
    if timed.database.memory:
        figure("CPU time of Postgres", 1000 * timed.database.cpu / count, "ms per saga")
    figure("flushes of Postgres' log (no engine's own store elsewhere is in it)", timed.flushes, "per saga")
    figure("Postgres' log", timed.log, "kB per saga")
    figure("CPU time of who starts the sagas and waits for them", timed.load.asking, "ms per saga")


def note_alone(run: Run, contender: Contender, found: Alone) -> None:
    figure = partial(run.figure, variant=contender.name)
    one = figure("a saga alone", found.spent, "ms")
    figure("99 of 100 sagas alone within", one.p99 or one.value, "ms")
    if found.back:
        figure("recovery from kill -9 of all workers, started again at once", found.back, "s")
    if found.goes_on is not None:
        figure(GOES_ON, float(found.goes_on), "1: seen here")
