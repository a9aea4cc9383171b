"""Which engine? The same orders on every one: speed, recovery, what it writes and takes, and how much code it is.

Our orchestrator on Postgres and Kafka, DBOS as a library on Postgres, Temporal, Camunda 7, Step Functions on moto: all
have the same four services carry out their steps, on one Postgres, and the same failures are drawn from the same seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from saga.contenders import CAMUNDA, CONTENDERS, OWN, STATES, TEMPORAL, UNDO_ATTEMPTS, Contender
from saga.engines import Engine, Outcome, Site
from saga.fates import KIND, Fates
from saga.measuring import Journal, Load, Usage, alone, carry, recover
from saga.order import SERVICE, UNDO, Action, Order, World, orders
from saga.schedules import Verdict, drawn, endure, fates
from saga.services import shop as shops
from saga.services.shop import Shop

from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.worker import Worker

TOPICS = {
    OWN: "I.4/orchestration-tools/custom-implementation",
    TEMPORAL: "I.4/orchestration-tools/temporal-io",
    CAMUNDA: "I.4/orchestration-tools/camunda",
    STATES: "I.4/orchestration-tools/aws-step-functions",
}
experiment = Experiment(
    title="Which engine: the same orders, the same failures",
    servers=("postgres", "kafka", "temporal"),
    topics=tuple(TOPICS.values()),
)
OPTIONAL = {CAMUNDA: "camunda", STATES: "moto"}
WORKERS = 2  # processes of each; ours has two more, which host the services that the workers of the others call
WARM_UP = 10  # sagas
NUMBERS = itertools.count()  # of shops


class Plan(NamedTuple):
    """How much of everything, by the scale."""

    sagas: int
    alone: int
    recoveries: int
    schedules: int


@dataclass(frozen=True)
class Timed:
    """What one engine did while nothing failed in the services."""

    load: Load
    alone: list[float]  # ms
    back: list[float]  # s from kill -9 of all workers to the end of the last saga
    took: Usage  # by its processes, of which server they may be: CPU and writes for the load, memory after it
    database: Usage  # by Postgres, likewise
    flushes: float  # of Postgres' log to the disk, per saga
    log: float  # of Postgres, kB per saga


@dataclass(frozen=True)
class Tried:
    """What one engine did when things failed."""

    verdict: Verdict
    undone: bool  # the shipments of which nobody knows

    @property
    def gives(self) -> dict[str, bool]:
        """What of it was seen here."""
        return {
            "goes on by itself after kill -9 of a worker": self.verdict.open_at_kill > 0 and not self.verdict.stuck,
            "undoes a step of which nobody knows whether it was done": self.undone,
            "keeps what fails for good for an operator": bool(self.verdict.waiting),
        }


@experiment.run
def main(run: Run) -> None:
    plan = run.pick(Plan(5, 2, 0, 1), Plan(50, 10, 1, 1), Plan(500, 100, 5, 5))
    run.parameters.update({"workers": WORKERS, "attempts of a compensation": UNDO_ATTEMPTS, **plan._asdict()})
    faults, found = Faults(run.recorder("faults", "experiment")), gather(run)
    for contender, endpoints in found.items():
        with run.step(f"{plan.sagas} sagas on {contender.name}"):
            note(run, contender, time_it(run, contender, endpoints, plan, faults))
    # Side by side: here no time is taken.
    with run.step(f"{plan.schedules} fault schedules on each"), ThreadPoolExecutor(len(found)) as pool:
        jobs = [pool.submit(try_it, run, one, endpoints, plan, faults) for one, endpoints in found.items()]
        tried = {contender: job.result() for contender, job in zip(found, jobs, strict=True)}
    for contender, one in tried.items():
        claim(run, contender, one)
    compare(run)
    compare_code(run)


def gather(run: Run) -> dict[Contender, dict[str, Endpoint]]:
    """The engines that can be had here, each with the endpoints of its servers, and no other."""
    endpoints: dict[str, Endpoint | None] = dict(run.endpoints)
    for contender, server in OPTIONAL.items():
        endpoints[server] = run.optional(server, f"sagas on {contender.name}")
    there = {server: endpoint for server, endpoint in endpoints.items() if endpoint}
    return {
        contender: {server: there[server] for server in contender.servers}
        for contender in CONTENDERS
        if there.keys() >= set(contender.servers)
    }


@contextmanager
def up(
    run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], given: Fates
) -> Iterator[tuple[Engine, Shop]]:
    """The engine, on a shop of its own."""
    database, space = run.endpoints["postgres"], f"{run.name}_{next(NUMBERS)}"
    shop = shops.create(database, space, given)
    run.cleanup(lambda: shops.drop(database, space))

    def worker(name: str, *arguments: object) -> Worker:
        return run.worker(f"{contender.name}/{name}", *arguments)  # type: ignore[arg-type]

    with contender.opened(Site(shop, space, endpoints, run.folder / contender.name, worker, WORKERS)) as engine:
        yield engine, shop


def time_it(run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], plan: Plan, faults: Faults) -> Timed:
    """Speed, and what it takes."""
    database, sagas = (
        run.endpoints["postgres"].url,
        WARM_UP + plan.sagas + plan.alone + contender.at_once * plan.recoveries,
    )
    with up(run, contender, endpoints, KIND) as (engine, _):
        before = Journal.read(database)
        carry(engine, some("warm", WARM_UP), contender.at_once)
        began = usage(run, contender, engine)
        load = carry(engine, some("load", plan.sagas), contender.at_once)
        took, of_database = (end - start for start, end in zip(began, usage(run, contender, engine), strict=True))
        spent = [alone(engine, order) for order in some("alone", plan.alone)]
        back = [recover(engine, some(f"back{n}", contender.at_once), faults.kill) for n in range(plan.recoveries)]
    log = Journal.read(database) - before
    return Timed(load, spent, back, took, of_database, log.flushes / sagas, log.length / 1000 / sagas)


def try_it(run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], plan: Plan, faults: Faults) -> Tried:
    """What becomes of orders whose steps fail as drawn, while workers are killed."""
    schedules = drawn(run.seed, plan.schedules)
    with up(run, contender, endpoints, fates(run.seed, schedules)) as (engine, shop):
        verdict = endure(engine, shop, schedules, faults.kill)
    doubtful = [order for schedule in schedules for order in schedule.doubtful]
    undone = all(asked(shop, order, UNDO[Action.SHIP]) for order in doubtful)
    return Tried(verdict, undone and {verdict.outcomes[order].outcome for order in doubtful} == {Outcome.COMPENSATED})


def some(kind: str, count: int) -> list[Order]:
    """So many orders, the same for every engine."""
    return list(orders(0, count, World(), kind))


def asked(shop: Shop, saga: str, action: Action) -> bool:
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


def note(run: Run, contender: Contender, timed: Timed) -> None:
    figure, count = partial(run.figure, variant=contender.name), len(timed.load.ended)
    figure("sagas", timed.load.rate, "sagas/s", at_once=contender.at_once)
    figure("a saga among others", timed.load.milliseconds, "ms", at_once=contender.at_once)
    figure("a saga alone", timed.alone, "ms")
    if timed.back:
        figure("recovery from kill -9 of all workers", timed.back, "s")
    figure("CPU time of the engine", 1000 * timed.took.cpu / count, "ms per saga")
    figure("written by the engine's processes", timed.took.written / count, "kB per saga")
    figure("memory of the engine", timed.took.memory, "MB")
    if timed.database.memory:
        figure("CPU time of Postgres", 1000 * timed.database.cpu / count, "ms per saga")
    figure("flushes of Postgres' log", timed.flushes, "per saga")
    figure("Postgres' log", timed.log, "kB per saga")


def claim(run: Run, contender: Contender, tried: Tried) -> None:
    name, verdict = contender.name, tried.verdict
    topics = [TOPICS[contender]] if contender in TOPICS else []
    run.claim(
        f"{name} leaves every order complete or undone, whatever fails and though a worker is killed",
        not verdict.violations and not verdict.stuck and verdict.open_at_kill > 0,
        topics=topics,
        fact=f"{len(verdict.outcomes)} orders, {verdict.open_at_kill} open at a kill;"
        f" {'; '.join([*verdict.violations, *verdict.stuck][:5]) or 'all consistent, none stuck'}",
        variant=name,
    )
    run.claim(
        f"{name} undoes even the step of which nobody knows whether it was done, and leaves to an operator what cannot"
        " be undone",
        tried.undone and len(verdict.waiting) > 0,
        topics=topics,
        fact=f"{len(verdict.waiting)} waiting",
        variant=name,
    )
    gives = {**tried.gives, "needs no server but Postgres": contender.servers == ("postgres",)}
    for what, given in gives.items():
        run.figure("gives", float(given), "(1: seen here)", variant=name, x=what, x_label="what")


def compare(run: Run) -> None:
    """At scale smoke nothing is fast: it is over before anything is warm."""
    rates = {figure.variant: figure.value for figure in run.figures if figure.name == "sagas"}
    if run.scale is not Scale.SMOKE:
        run.claim(
            "our orchestrator, which writes in batches, ends more sagas a second than any other engine here",
            max(rates, key=lambda name: rates[name]) == OWN.name,
            topics=[TOPICS[OWN]],
            fact=", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
            variant=OWN.name,
        )


def compare_code(run: Run) -> None:
    lines = {contender.name: contender.code_lines for contender in CONTENDERS}
    for contender in CONTENDERS:
        run.figure("code", lines[contender.name], "lines of Python", variant=contender.name, data=contender.data_lines)
    run.claim(
        "an engine of one's own is the most code to write and to answer for",
        max(lines, key=lambda name: lines[name]) == OWN.name,
        topics=list(TOPICS.values()),
        fact=", ".join(f"{name} {count}" for name, count in lines.items()),
        variant=OWN.name,
    )


if __name__ == "__main__":
    experiment.main()
