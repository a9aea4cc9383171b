"""What is measured of an engine: how fast it is, how soon it is back, what it writes, and what its processes take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from saga.order import SERVICE, Action, Order, World, orders
from saga.services.invariant import Ending, judge
from saga.services.shop import Shop
from saga.stage.contenders import (
    Contender,
)
from saga.stage.engines import PATIENCE, Ended, Engine, await_ends, drive, wait
from saga.stage.fates import FatedShop
from saga.stage.schedules import Verdict
from shared.errors import DeadlineExceeded, FaultNotFired, LabError
from shared.experiment import Run
from shared.postgres import connect
from shared.usage import Usage
from shared.wait import until
from shared.worker import Worker

PAUSE = 0.001  # seconds between two looks at a saga that is alone


class NothingToMeasure(LabError):
    """Sagas did not end as they should have, although no step failed."""


@dataclass(frozen=True)
class Load:
    """What came of carrying out orders, many at once."""

    rate: float  # sagas per second, from the first start to the last end
    ended: dict[str, Ended]
    asking: float  # CPU time of whoever starts sagas and asks for their ends, ms per saga

    @property
    def milliseconds(self) -> list[float]:
        return [1000 * ended.seconds for ended in self.ended.values()]


def carry(engine: Engine, orders: Sequence[Order], at_once: int) -> Load:
    """Carry out all orders. Raises DeadlineExceeded."""
    began, cpu = time.perf_counter(), time.process_time()
    ended = drive(engine, orders, at_once)
    seconds, asking = time.perf_counter() - began, time.process_time() - cpu
    return Load(len(orders) / seconds, ended, 1000 * asking / len(orders))


def alone(engine: Engine, order: Order) -> float:
    """Milliseconds of a saga while there is no other, from before its start until whoever started it sees its end.

    Raises DeadlineExceeded.
    """
    began = time.perf_counter()
    engine.start(order)
    while not engine.ended([order.id]):
        if time.perf_counter() - began > PATIENCE:
            raise DeadlineExceeded(f"waited {PATIENCE:g} s for saga {order.id} of {engine.name} to end")
        time.sleep(PAUSE)
    return 1000 * (time.perf_counter() - began)


def recover(engine: Engine, orders: Sequence[Order], kill: Callable[[Worker], object]) -> float:
    """Seconds from kill -9 of every worker, which start again at once, until all that had begun has ended.

    Every one, since what is open may be in the hands of any.

    Raises FaultNotFired when nothing was open by then, and DeadlineExceeded.
    """
    for order in orders:
        engine.start(order)
    sagas = {order.id for order in orders}
    until("a first saga to end", lambda: engine.ended(sagas))
    killed = time.perf_counter()
    for worker in engine.workers:
        kill(worker)
    left = sagas - engine.ended(sagas).keys()
    for worker in engine.workers:
        worker.start()
    if not left:
        raise FaultNotFired(f"all {len(sagas)} sagas of {engine.name} had ended when its workers were killed")
    wait(engine, left)
    return time.perf_counter() - killed


def goes_on(engine: Engine, orders: Sequence[Order], kill: Callable[[Worker], object], patience: float) -> bool:
    """Whether all ends in time that had begun when one worker of several died, and did not come back until then.

    Raises FaultNotFired when nothing was open by then, and DeadlineExceeded when it does not end with it either.
    """
    for order in orders:
        engine.start(order)
    sagas = {order.id for order in orders}
    until("a first saga to end", lambda: engine.ended(sagas))
    victim = engine.workers[0]
    kill(victim)
    left = sagas - engine.ended(sagas).keys()
    if not left:
        raise FaultNotFired(f"all {len(sagas)} sagas of {engine.name} had ended when its worker was killed")
    alone = left.issubset(await_ends(engine, left, patience))
    victim.start()
    wait(engine, left)
    return alone


def require_complete(shop: Shop, count: int) -> None:
    """Raises NothingToMeasure unless so many orders are complete in all services, and no other was begun."""
    standing = judge(shop)
    if standing.violations or standing.count(Ending.COMPLETE) != count or len(standing.endings) != count:
        complete = standing.count(Ending.COMPLETE)
        raise NothingToMeasure(f"{complete} of {count} orders complete: {standing.endings} {standing.violations[:3]}")


# What the figures are called in a record.


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


@dataclass(frozen=True)
class Tried:
    """What one engine did when things failed."""

    verdict: Verdict
    undone: bool  # the shipments of which nobody knows
    ran: frozenset[str]  # the modules of this lab that its workers carried out

    @property
    def gives(self) -> dict[str, bool]:
        """What of it was seen here."""
        return {
            "ends all when a killed worker comes back": self.verdict.open_at_kill > 0 and not self.verdict.stuck,
            "undoes a step of which nobody knows whether it was done": self.undone,
            "keeps what fails for good for an operator": bool(self.verdict.waiting),
        }


def notes(run: Run, worker: str) -> Path:
    return run.folder / f"{worker}.ran"


def some(kind: str, count: int) -> list[Order]:
    """So many orders, the same for every engine."""
    return list(orders(0, count, World(), kind))


def asked(shop: FatedShop, saga: str, action: Action) -> bool:
    """Whether the service has answered such a request."""
    with connect(shop.conninfos[SERVICE[action]]) as connection:
        known = "select 1 from inbox where request_id = %s"
        return connection.execute(known, [f"{saga}:{action}"]).fetchone() is not None


def usage(run: Run, contender: Contender, engine: Engine) -> tuple[Usage, Usage]:
    """By the engine's processes with those of its servers, and by Postgres: of servers, where they are ours to see."""
    servers = [pid for server in contender.servers if server != "postgres" for pid in pids(run, server)]
    return Usage.of({*engine.pids.values(), *servers}), Usage.of(pids(run, "postgres"))


def pids(run: Run, server: str) -> list[int]:
    """None where it is somebody else's, or runs in a container."""
    ours = server in run.endpoints and run.endpoints[server].ours
    return [process.pid for process in run.control(server).record.processes] if ours else []
