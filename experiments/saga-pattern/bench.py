"""Our orchestrator against DBOS and Temporal, and every engine under fault schedules: one run, one JSON object.

Our orchestrator, DBOS and Temporal carry out the same order saga by the same four services on one Postgres; Kafka,
Postgres and Temporal's dev server (SQLite in WAL mode) are the run's own, with nothing else on them. Each step is a
transaction. Services that are asked by message commit up to a hundred of them at once, those that are called cannot;
what that is worth shows a second run of ours with a commit for each step.

Contenders take turns, and turn about, each brought up anew on empty tables with as many workers, and with so many sagas
at once as suit it best (20, 40, 80 and more were tried). A first heat of each, in which the servers get warm, does not
count. Speed is measured while nothing fails. Recovery is from kill -9 of the only worker (of ours, of the services'
hosts as well), started again at once, to the end of the last saga that had begun: the slowest of several.

In a fault schedule the steps of ten orders fail as drawn from a seed (refused, transient, slow, answer lost, broken for
good) while a worker is killed: on these three, on Camunda 7 and Step Functions where they can be had, and on the
choreography.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from saga.engines.dbos import System
from saga.order import Order, World, orders
from saga.services import shop as shops
from saga.services.shop import Shop
from saga.stage.contenders import DBOS, OWN, SINGLY, TEMPORAL, UNDO_ATTEMPTS, Contender, gather
from saga.stage.engines import Engine, Site
from saga.stage.fates import KIND, Fates
from saga.stage.fates import create as create_shop
from saga.stage.measuring import Load, alone, carry, recover, require_complete
from saga.stage.schedules import Schedule, Verdict, drawn, endure, fates
from saga.stage.targets import TARGETS

from shared import postgres
from shared.errors import FaultNotFired
from shared.faults import Faults
from shared.run import Run
from shared.servers.server import Endpoint
from shared.targets import Benchmark
from shared.threads import together

experiment = Benchmark(
    title="Our orchestrator against DBOS and Temporal",
    targets=TARGETS,
    quick="1 round, 2 fault schedules: under two minutes",
)
# Processes of each; ours has two more, which host the services that the workers of the others call. With four, DBOS is
# slower than with two (84 to 105 sagas/s instead of 131 to 138), and Temporal's server is busy with either. DBOS
# with 10, 20 or 40 sagas in a worker's hand and 8 or 16 sets of connections to the services: 104 to 134, in no order.
WORKERS = 2
CONTENDERS = OWN, DBOS, TEMPORAL
RACE = OWN, SINGLY, DBOS, TEMPORAL
HEAT = {OWN: 600, SINGLY: 600, DBOS: 300, TEMPORAL: 80}  # sagas: two seconds or more
WARM_UP = 20
FACTORS = (
    ("orchestrator_vs_dbos", OWN, DBOS),
    ("orchestrator_vs_temporal", OWN, TEMPORAL),
    ("singly_vs_dbos", SINGLY, DBOS),
)


@dataclass
class Bench:
    """The servers of the run, and names for what is made on them."""

    run: Run
    endpoints: Mapping[str, Endpoint]
    faults: Faults
    numbers: Iterator[int] = field(default_factory=itertools.count)  # of whatever is made

    def orders(self, count: int) -> list[Order]:
        return list(orders(next(self.numbers), count, World(), "bench"))


@experiment.run
def main(run: Run) -> None:
    bench = set_up(run)
    rounds, lone, kills, schedules = run.pick((1, 20, 1, 2), (1, 100, 1, 2), (7, 500, 5, 50))
    run.parameters.update(
        {
            "workers": WORKERS,
            "attempts of a compensation": UNDO_ATTEMPTS,
            "rounds": rounds,
            "kills": kills,
            "fault schedules": schedules,
        }
    )
    run.parameters.update({"DBOS: sagas of a worker": System.at_once, "DBOS: sets of connections": System.lent})
    run.parameters.update({f"at once: {contender.name}": contender.at_once for contender in CONTENDERS})
    race(bench, rounds)
    for contender in CONTENDERS:
        time_alone_and_killed(bench, contender, lone if contender is OWN else lone // 5, kills)
    survive(bench, schedules)
    experiment.claim_targets(run)


def set_up(run: Run) -> Bench:
    """Servers of the run's own; the broker with the full JIT."""
    handles = {
        "postgres": run.own("postgres", max_connections="300"),  # for the fault schedules, side by side
        "kafka": run.own("kafka", lab_jit="full"),
        "temporal": run.own("temporal"),
    }
    endpoints = {name: handle.endpoint for name, handle in handles.items()}
    return Bench(run, endpoints, Faults(run.recorder("faults", "bench")))


@contextmanager
def up(
    bench: Bench,
    contender: Contender,
    given: Fates = KIND,
    workers: int = WORKERS,
    endpoints: Mapping[str, Endpoint] | None = None,
) -> Iterator[tuple[Engine, Shop]]:
    """The contender with a shop of its own, and all that was written before on the disk: nobody pays for another's."""
    database, name = bench.endpoints["postgres"], f"{bench.run.name}_{next(bench.numbers)}"
    folder = bench.run.folder / name
    with postgres.connect(database.url) as connection:
        connection.execute("checkpoint")
    os.sync()
    shop = create_shop(database, name, given)
    site = Site(shop, name, endpoints or bench.endpoints, folder, bench.run.worker, workers)
    with contender.opened(site) as engine:
        yield engine, shop
    shops.drop(database, name)


def race(bench: Bench, rounds: int) -> None:
    """Sagas per second, in turn; the factors are medians over the rounds."""
    for contender in RACE:
        with bench.run.step(f"warm-up, not counted: {contender.name} carries out {HEAT[contender]} sagas"):
            heat(bench, contender)
    loads: dict[Contender, list[Load]] = {contender: [] for contender in RACE}
    for number in range(rounds):
        for contender in RACE if number % 2 == 0 else reversed(RACE):
            with bench.run.step(
                f"round {number + 1} of {rounds}: {contender.name} carries out {HEAT[contender]} sagas"
            ):
                loads[contender].append(heat(bench, contender))
            bench.run.output.say(f"{loads[contender][-1].rate:,.0f} sagas/s")
    for contender, found in loads.items():
        rates, spent = [load.rate for load in found], [one for load in found for one in load.milliseconds]
        bench.run.figure("sagas", rates, "sagas/s", variant=contender.name, at_once=contender.at_once)
        bench.run.figure("a saga among others", spent, "ms", variant=contender.name, at_once=contender.at_once)
    for name, one, other in FACTORS:
        both = zip(loads[one], loads[other], strict=True)
        bench.run.figure(name, [ours.rate / theirs.rate for ours, theirs in both], "x")


def heat(bench: Bench, contender: Contender) -> Load:
    """Raises NothingToMeasure unless every order is complete in all services."""
    with up(bench, contender) as (engine, shop):
        carry(engine, bench.orders(WARM_UP), contender.at_once)
        load = carry(engine, bench.orders(HEAT[contender]), contender.at_once)
        require_complete(shop, WARM_UP + HEAT[contender])
    return load


def time_alone_and_killed(bench: Bench, contender: Contender, lone: int, kills: int) -> None:
    """Raises NothingToMeasure unless every order is complete, those too that were open at a kill."""
    run = bench.run
    with (
        run.step(f"{contender.name}: {lone} sagas alone, {kills} kills of its one worker"),
        up(bench, contender, workers=1) as (engine, shop),
    ):
        carry(engine, bench.orders(WARM_UP), contender.at_once)
        spent = [alone(engine, order) for order in bench.orders(lone)]
        back = [recover(engine, bench.orders(contender.at_once), bench.faults.kill) for _ in range(kills)]
        require_complete(shop, WARM_UP + lone + kills * contender.at_once)
    p99 = run.figure("a saga alone", spent, "ms", variant=contender.name).p99
    run.figure("recovery", back, "s", variant=contender.name)
    run.output.say(f"99 of 100 alone within {p99:.1f} ms; recovered in {', '.join(f'{took:.1f} s' for took in back)}")
    if contender is OWN:
        run.figure("lone_p99_ms", p99 or 0.0, "ms", sagas=lone)
        run.figure("recovery_s", max(back), "s", kills=kills)
    elif contender is TEMPORAL:
        run.figure("temporal_recovery_s", max(back), "s", kills=kills)


def survive(bench: Bench, number: int) -> None:
    """Every engine that can be had here, under the same schedules; side by side, since no time is taken.

    Raises FaultNotFired when no kill met an open saga of an engine.
    """
    run, schedules = bench.run, drawn(bench.run.seed, number)
    engines = gather(run, bench.endpoints)
    what = f"{number} fault schedules of {schedules[0].count} sagas and a kill on each of {len(engines)} engines"
    with run.step(what):
        verdicts = together(lambda one: try_it(bench, *one, schedules), engines.items())
    found = {contender.name: verdict for contender, verdict in zip(engines, verdicts, strict=True)}
    for name, verdict in found.items():
        run.figure("violations under fault schedules", len(verdict.violations), "", variant=name)
        run.figure("stuck under fault schedules", len(verdict.stuck), "sagas", variant=name)
        run.figure("left to an operator", len(verdict.waiting), "sagas", variant=name)
        run.figure("sagas open when a worker was killed", verdict.open_at_kill, "sagas", variant=name)
        seen = [*verdict.violations, *verdict.stuck][:5]
        run.output.say(f"{name}: {'; '.join(seen) or 'all consistent, none stuck'}")
    if spared := [name for name, verdict in found.items() if verdict.open_at_kill == 0]:
        raise FaultNotFired(f"no saga was open when a worker was killed: {', '.join(spared)}")
    run.figure("engines", len(found), "", schedules=number)
    for key in ("violations", "stuck"):
        count = sum(len(getattr(verdict, key)) for verdict in found.values())
        run.figure(key, count, "", schedules=number)


def try_it(
    bench: Bench, contender: Contender, endpoints: Mapping[str, Endpoint], schedules: Sequence[Schedule]
) -> Verdict:
    with up(bench, contender, fates(bench.run.seed, schedules), endpoints=endpoints) as (engine, shop):
        return endure(engine, shop, schedules, bench.faults.kill, decides=contender.decides)


if __name__ == "__main__":
    experiment.main()
