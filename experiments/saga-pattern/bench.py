"""Our orchestrator against DBOS and Temporal, and all three under fault schedules: one run, one JSON object.

All carry out the same order saga by the same four services, whose every step is a transaction on one Postgres; Kafka,
Postgres and Temporal's dev server (SQLite in WAL mode) are the run's own, with nothing else on them. Contenders take
turns, and turn about, each brought up anew on empty tables with as many workers, and with so many sagas at once as suit
it best. Speed is measured while nothing fails. Recovery is from kill -9 of the only worker, which is started again at
once, to the end of the last saga that had begun: the slowest of several. In a fault schedule the steps of ten orders
fail as drawn from a seed (refused, transient, slow, answer lost, broken for good) while a worker is killed.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer
from saga.contenders import DBOS, OWN, TEMPORAL, UNDO_ATTEMPTS, Contender
from saga.engines import Engine, Site
from saga.fates import KIND, Fates
from saga.invariant import Ending, judge
from saga.measuring import Load, alone, carry, recover
from saga.order import Order, World, orders
from saga.schedules import drawn, endure, fates
from saga.services import shop as shops
from saga.services.shop import Shop
from saga.targets import TARGETS, claim_targets, taught

from shared import postgres
from shared.errors import LabError
from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.output import Output
from shared.servers.server import Endpoint

experiment = Experiment(title="Our orchestrator against DBOS and Temporal")
WORKERS = 2  # processes of each; ours has two more, which host the services that the workers of the others call
CONTENDERS = OWN, DBOS, TEMPORAL
HEAT = {OWN: 600, DBOS: 300, TEMPORAL: 80}  # sagas: two seconds or more
WARM_UP = 20


class NothingToMeasure(LabError):
    """Sagas did not end as they should have, although nothing failed."""


@dataclass
class Bench:
    """The servers of the run, and names for what is made on them."""

    run: Run
    endpoints: Mapping[str, Endpoint]
    faults: Faults
    made: int = 0

    def orders(self, count: int) -> list[Order]:
        self.made += 1
        return list(orders(self.made, count, World(), "bench"))


@experiment.run
def main(run: Run) -> None:
    bench = set_up(run)
    rounds, lone, kills, schedules = run.pick((1, 20, 1, 2), (1, 100, 2, 6), (7, 500, 5, 50))
    run.parameters.update(
        {
            "workers": WORKERS,
            "attempts of a compensation": UNDO_ATTEMPTS,
            "rounds": rounds,
            "kills": kills,
            "fault schedules": schedules,
        }
    )
    run.parameters.update({f"at once: {contender.name}": contender.at_once for contender in CONTENDERS})
    race(bench, rounds)
    for contender in CONTENDERS:
        time_alone_and_killed(bench, contender, lone if contender is OWN else lone // 5, kills)
    survive(bench, schedules)
    claim_targets(run)


def set_up(run: Run) -> Bench:
    """Servers of the run's own; the broker with the full JIT."""
    handles = {
        "postgres": run.own("postgres"),
        "kafka": run.own("kafka", lab_jit="full"),
        "temporal": run.own("temporal"),
    }
    endpoints = {name: handle.endpoint for name, handle in handles.items()}
    return Bench(run, endpoints, Faults(run.recorder("faults", "bench")))


@contextmanager
def up(
    bench: Bench, contender: Contender, given: Fates = KIND, workers: int = WORKERS
) -> Iterator[tuple[Engine, Shop]]:
    """The contender with a shop of its own, and all that was written before on the disk: nobody pays for another's."""
    database, name = bench.endpoints["postgres"], f"{bench.run.name}_{bench.made}"
    bench.made += 1
    with postgres.connect(database.url) as connection:
        connection.execute("checkpoint")
    os.sync()
    shop = shops.create(database, name, given)
    with contender.opened(Site(shop, name, bench.endpoints, bench.run.folder, bench.run.worker, workers)) as engine:
        yield engine, shop
    shops.drop(database, name)


def race(bench: Bench, rounds: int) -> None:
    """Sagas per second, in turn; the factors are medians over the rounds."""
    loads: dict[Contender, list[Load]] = {contender: [] for contender in CONTENDERS}
    for number in range(rounds):
        for contender in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
            with bench.run.step(
                f"round {number + 1} of {rounds}: {contender.name} carries out {HEAT[contender]} sagas"
            ):
                loads[contender].append(heat(bench, contender))
            bench.run.output.say(f"{loads[contender][-1].rate:,.0f} sagas/s")
    for contender, found in loads.items():
        rates, spent = [load.rate for load in found], [one for load in found for one in load.milliseconds]
        bench.run.figure("sagas", rates, "sagas/s", variant=contender.name, at_once=contender.at_once)
        bench.run.figure("a saga among others", spent, "ms", variant=contender.name, at_once=contender.at_once)
    for name, other in (("orchestrator_vs_dbos", DBOS), ("orchestrator_vs_temporal", TEMPORAL)):
        both = zip(loads[OWN], loads[other], strict=True)
        bench.run.figure(name, [ours.rate / theirs.rate for ours, theirs in both], "x")


def heat(bench: Bench, contender: Contender) -> Load:
    """Raises NothingToMeasure unless every order is complete in all services."""
    with up(bench, contender) as (engine, shop):
        carry(engine, bench.orders(WARM_UP), contender.at_once)
        load = carry(engine, bench.orders(HEAT[contender]), contender.at_once)
        standing, count = judge(shop), WARM_UP + HEAT[contender]
        if standing.violations or standing.count(Ending.COMPLETE) != count:
            complete = standing.count(Ending.COMPLETE)
            raise NothingToMeasure(f"{contender.name}: {complete} of {count} complete, {standing.violations[:3]}")
    return load


def time_alone_and_killed(bench: Bench, contender: Contender, lone: int, kills: int) -> None:
    run = bench.run
    with (
        run.step(f"{contender.name}: {lone} sagas alone, {kills} kills of its one worker"),
        up(bench, contender, workers=1) as (engine, _),
    ):
        carry(engine, bench.orders(WARM_UP), contender.at_once)
        spent = [alone(engine, order) for order in bench.orders(lone)]
        back = [recover(engine, bench.orders(contender.at_once), bench.faults.kill) for _ in range(kills)]
    p99 = run.figure("a saga alone", spent, "ms", variant=contender.name).p99
    run.figure("recovery", back, "s", variant=contender.name)
    run.output.say(f"99 of 100 alone within {p99:.1f} ms; recovered in {', '.join(f'{took:.1f} s' for took in back)}")
    if contender is OWN:
        run.figure("lone_p99_ms", p99 or 0.0, "ms", sagas=lone)
        run.figure("recovery_s", max(back), "s", kills=kills)
    elif contender is TEMPORAL:
        run.figure("temporal_recovery_s", max(back), "s", kills=kills)


def survive(bench: Bench, number: int) -> None:
    """Every contender, under the same schedules."""
    run, schedules = bench.run, drawn(bench.run.seed, number)
    wrong: dict[str, list[str]] = {"violations": [], "stuck": []}
    for contender in CONTENDERS:
        with (
            run.step(f"{contender.name}: {number} fault schedules of {schedules[0].count} sagas and a kill"),
            up(bench, contender, fates(run.seed, schedules)) as (engine, shop),
        ):
            verdict = endure(engine, shop, schedules, bench.faults.kill)
        run.figure("violations under fault schedules", len(verdict.violations), "", variant=contender.name)
        run.figure("stuck under fault schedules", len(verdict.stuck), "sagas", variant=contender.name)
        run.figure("left to an operator", len(verdict.waiting), "sagas", variant=contender.name)
        run.figure("sagas open when a worker was killed", verdict.open_at_kill, "sagas", variant=contender.name)
        wrong["violations"] += verdict.violations
        wrong["stuck"] += verdict.stuck
        run.output.say("; ".join([*verdict.violations, *verdict.stuck][:5]) or "all consistent, none stuck")
    for name, found in wrong.items():
        run.figure(name, len(found), "", schedules=number, engines=len(CONTENDERS))


def command(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object with the keys below")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="1 round, 6 fault schedules: under two minutes")] = False,
    seed: int = 1,
) -> None:
    output = Output(silent=as_json)
    record, folder = experiment.execute(Scale.DEMO if quick else Scale.FULL, seed, None, output)
    if record.error:
        raise SystemExit(f"error: {record.error}")
    if as_json:
        print(json.dumps({key: round(record.figure(key).value, 3) for key in TARGETS}))
    output.closing(record, str(folder))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(help=f"{__doc__}\n\nThe figures, each with its target:\n\n{taught()}")(command)
    app()
