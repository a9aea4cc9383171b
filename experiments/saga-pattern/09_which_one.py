"""Which engine? The same orders on every one: speed, recovery, what it writes and takes, and how much code it is.

Our orchestrator and the choreography on Postgres and Kafka, DBOS as a library on Postgres, Temporal, Camunda 7, Step
Functions on moto: all have the same four services carry out their steps, on one Postgres, and the same failures are
drawn from the same seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from saga.order import UNDO, Action, Outcome
from saga.stage import contenders, measuring
from saga.stage.contenders import OWN, Contender
from saga.stage.engines import Engine, Site
from saga.stage.fates import KIND, FatedShop, Fates, open_shop
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.dbos import Workflows
from saga.stage.measuring import alone
from saga.stage.ran import lines as ran_lines
from saga.stage.ran import noted, noting
from saga.stage.schedules import drawn, endure, fates

from shared.experiment import Experiment, Run, Scale
from shared.faults import Faults
from shared.servers.server import Endpoint
from shared.threads import together
from shared.worker import Worker

TOPICS = {
    OWN: "I.4/orchestration-tools/custom-implementation",
    contenders.TEMPORAL: "I.4/orchestration-tools/temporal-io",
    contenders.CAMUNDA: "I.4/orchestration-tools/camunda",
    contenders.STATES: "I.4/orchestration-tools/aws-step-functions",
}
experiment = Experiment(
    title="Which engine: the same orders, the same failures",
    servers=("postgres", "kafka", "temporal"),
    topics=tuple(TOPICS.values()),
)
# Processes of each; ours has two more, which host the services that the workers of the others call, and a choreography
# has one for each service.
WORKERS = 2
WARM_UP = 10  # sagas
STAYS_DEAD = 15.0  # seconds: three times what any engine takes to find out that a worker is dead
NUMBERS = itertools.count()  # of shops


class Plan(NamedTuple):
    """How much of everything, by the scale."""

    sagas: int
    alone: int
    recoveries: int
    schedules: int


@experiment.run
def main(run: Run) -> None:
    plan = run.pick(Plan(5, 2, 0, 1), Plan(50, 10, 1, 1), Plan(500, 100, 5, 5))
    run.parameters.update(
        {"workers": WORKERS, "attempts of a compensation": contenders.UNDO_ATTEMPTS, **plan._asdict()}
    )
    faults = Faults(run.recorder("faults", "experiment"))
    found = contenders.gather(run, run.endpoints, more=run.scale is not Scale.SMOKE)
    for contender, endpoints in found.items():
        with run.step(f"{plan.sagas} sagas on {contender.name}"):
            measuring.note(run, contender, time_it(run, contender, endpoints, plan))
        with run.step(f"{plan.alone} alone on {contender.name}, and {plan.recoveries} kills of its workers"):
            measuring.note_alone(run, contender, time_alone(run, contender, endpoints, plan, faults))
    # Side by side: here no time is taken.
    with run.step(f"{plan.schedules} fault schedules on each"):
        verdicts = together(lambda one: try_it(run, *one, plan, faults), found.items())
    tried = dict(zip(found, verdicts, strict=True))
    for contender, one in tried.items():
        claim(run, contender, one)
    with run.step("orders that nobody can read, in the queue of DBOS"):
        claim_foreign(run, contenders.DBOS.name, contenders.DBOS.opened, Workflows, [], found[contenders.DBOS])
    compare(run)
    if run.scale is Scale.FULL:
        compare_without(run)
    compare_code(run, tried)


@contextmanager
def up(
    run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], given: Fates, watched: bool = False
) -> Iterator[tuple[Engine, FatedShop]]:
    """The engine, on a shop of its own. Where it is watched, its processes note what they carry out: see `notes`."""
    number = str(next(NUMBERS))
    shop = open_shop(run, number, given)

    def worker(name: str, *arguments: object) -> Worker:
        name = f"{contender.name}/{name}"
        return run.worker(name, *((noting, measuring.notes(run, name)) if watched else ()), *arguments)

    space, folder = f"{run.name}_{number}", run.folder / contender.name
    with contender.opened(Site(shop, space, endpoints, folder, worker, WORKERS, keep=run.keep)) as engine:
        yield engine, shop


def time_it(run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], plan: Plan) -> measuring.Timed:
    """Speed, and what it takes. Raises NothingToMeasure unless every order is complete."""
    database, sagas = run.endpoints["postgres"].url, WARM_UP + plan.sagas
    with up(run, contender, endpoints, KIND) as (engine, shop):
        before = measuring.Journal.read(database)
        measuring.carry(engine, measuring.some("warm", WARM_UP), contender.at_once)
        began = measuring.usage(run, contender, engine)
        load = measuring.carry(engine, measuring.some("load", plan.sagas), contender.at_once)
        took, of_database = (
            end - start for start, end in zip(began, measuring.usage(run, contender, engine), strict=True)
        )
    log = measuring.Journal.read(database) - before  # by now every session has told of its flushes
    measuring.require_complete(shop, sagas)
    return measuring.Timed(load, took, of_database, log.flushes / sagas, log.length / 1000 / sagas)


def time_alone(
    run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], plan: Plan, faults: Faults
) -> measuring.Alone:
    """One saga after the other, then many, whose workers are killed. Raises NothingToMeasure as above."""
    many, further = contender.at_once, None
    with up(run, contender, endpoints, KIND) as (engine, shop):
        measuring.carry(engine, measuring.some("warm", WARM_UP), contender.at_once)
        spent = [alone(engine, order) for order in measuring.some("alone", plan.alone)]
        back = [
            measuring.recover(engine, measuring.some(f"back{n}", many), faults.kill) for n in range(plan.recoveries)
        ]
        if run.scale is Scale.FULL:
            further = measuring.goes_on(engine, measuring.some("further", many), faults.kill, STAYS_DEAD)
        measuring.require_complete(shop, WARM_UP + plan.alone + many * (plan.recoveries + (run.scale is Scale.FULL)))
    return measuring.Alone(spent, back, further)


def try_it(
    run: Run, contender: Contender, endpoints: Mapping[str, Endpoint], plan: Plan, faults: Faults
) -> measuring.Tried:
    """What becomes of orders whose steps fail as drawn, while workers are killed."""
    schedules = drawn(run.seed, plan.schedules)
    with up(run, contender, endpoints, fates(run.seed, schedules), watched=True) as (engine, shop):
        verdict = endure(engine, shop, schedules, faults.kill, decides=contender.decides)
        ran = frozenset(noted(measuring.notes(run, worker.name) for worker in engine.workers))
    doubtful = [order for schedule in schedules for order in schedule.doubtful]
    undone = all(measuring.asked(shop, order, UNDO[Action.SHIP]) for order in doubtful)
    return measuring.Tried(
        verdict, undone and {verdict.outcome(order) for order in doubtful} == {Outcome.COMPENSATED}, ran
    )


def claim(run: Run, contender: Contender, tried: measuring.Tried) -> None:
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
    if contender.decides:
        text = f"{name} undoes even the step of which nobody knows whether it was done"
    else:
        text = f"in {name}, nobody decides about the step of which nobody knows whether it was done"
    run.claim(
        f"{text}, and leaves to an operator what cannot be undone",
        tried.undone is contender.decides and len(verdict.waiting) > 0,
        topics=topics,
        fact=f"{len(verdict.waiting)} waiting",
        variant=name,
    )
    gives = {**tried.gives, "needs no server but Postgres": contender.servers == ("postgres",)}
    for what, given in gives.items():
        run.figure(what, float(given), "1: seen here", variant=name)


def compare(run: Run) -> None:
    """At scale smoke nothing is fast: it is over before anything is warm."""
    rates = {figure.variant: figure.value for figure in run.figures if figure.name == "sagas"}
    del rates[contenders.CHOREOGRAPHY.name]  # it orchestrates nothing
    if run.scale is not Scale.SMOKE:
        run.claim(
            "our orchestrator, which writes in batches, ends more sagas a second than any other orchestrator here",
            max(rates, key=lambda name: rates[name]) == OWN.name,
            topics=[TOPICS[OWN]],
            fact=", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
            variant=OWN.name,
        )


def compare_without(run: Run) -> None:
    tried = [figure for figure in run.figures if figure.name == measuring.GOES_ON]
    on, off = ([figure.variant for figure in tried if bool(figure.value) is wanted] for wanted in (True, False))
    run.claim(
        "one worker of two stays dead: its sagas go on with the other one, but those of DBOS, which wait for it, and"
        " those of the choreography, in which nobody does its part",
        set(off) == {contenders.DBOS.name, contenders.CHOREOGRAPHY.name},
        topics=list(TOPICS.values()),
        fact=f"go on: {', '.join(on)}; wait: {', '.join(off)}",
    )


def compare_code(run: Run, tried: Mapping[Contender, measuring.Tried]) -> None:
    """What the workers of each carried out beyond what those of all did: the services, and what fails in them."""
    common = contenders.SAME.union(frozenset[str].intersection(*(one.ran for one in tried.values())))
    lines = {contender.name: ran_lines(one.ran - common) for contender, one in tried.items()}
    for contender in contenders.CONTENDERS:
        run.figure("code", contender.code_lines, "lines of Python", variant=contender.name, data=contender.data_lines)
    for name, count in lines.items():
        run.figure("code that its workers carried out", count, "lines of Python", variant=name)
    uncounted = {module for contender, one in tried.items() for module in one.ran - common - set(contender.code)}
    run.claim(
        "an engine of one's own is the most code to write and to answer for, of what the workers carried out",
        max(lines, key=lambda name: lines[name]) == OWN.name and not uncounted,
        topics=list(TOPICS.values()),
        fact=", ".join(f"{name} {count}" for name, count in lines.items())
        + "".join(f"; not counted: {one}" for one in uncounted),
        variant=OWN.name,
    )


if __name__ == "__main__":
    experiment.main()
