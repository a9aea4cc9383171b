"""Which engine? The same orders on every one: speed, recovery, what it writes and takes, and how much code it is.

Our orchestrator and the choreography on Postgres and Kafka, DBOS as a library on Postgres, Temporal, Camunda 7, Step
Functions on moto (saga/stage/contenders.py): all have the same four services carry out their steps, on one Postgres,
and the same failures are drawn from the same seed.
"""

from collections.abc import Mapping

from saga.stage import comparison, contenders
from saga.stage.comparison import Comparison, Plan
from saga.stage.contenders import OWN, Contender
from saga.stage.measuring import Tried

from shared.experiment import Experiment, Run, Scale

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


@experiment.run
def main(run: Run) -> None:
    plan = run.pick(Plan(5, 2, 0, 1), Plan(50, 10, 1, 1), Plan(500, 100, 5, 5))
    engines = comparison.compare(run, plan)
    for contender in engines.found:
        with run.step(f"{plan.sagas} sagas on {contender.name}"):
            engines.time(contender)
        with run.step(f"{plan.alone} alone on {contender.name}, and {plan.recoveries} kills of its workers"):
            engines.time_alone(contender)
    with run.step(f"{plan.schedules} fault schedules on each"):
        tried = engines.try_all()
    for contender, one in tried.items():
        claim(run, contender, one)
    with run.step("orders that nobody can read, in the queue of DBOS"):
        engines.claim_unreadable()
    if run.scale is not Scale.SMOKE:  # there nothing is fast: it is over before anything is warm
        claim_rates(run, engines.rates())
    if run.scale is Scale.FULL:
        claim_without(run, engines)
    claim_code(run, tried)


def claim(run: Run, contender: Contender, tried: Tried) -> None:
    name, verdict = contender.name, tried.verdict
    engine = run.about(name, topics=[TOPICS[contender]] if contender in TOPICS else [])
    engine.claim(
        f"{name} leaves every order complete or undone, whatever fails and though a worker is killed",
        not verdict.violations and not verdict.stuck and verdict.open_at_kill > 0,
        fact=f"{len(verdict.outcomes)} orders, {verdict.open_at_kill} open at a kill;"
        f" {'; '.join([*verdict.violations, *verdict.stuck][:5]) or 'all consistent, none stuck'}",
    )
    if contender.decides:
        text = f"{name} undoes even the step of which nobody knows whether it was done"
    else:
        text = f"in {name}, nobody decides about the step of which nobody knows whether it was done"
    engine.claim(
        f"{text}, and leaves to an operator what cannot be undone",
        tried.undone is contender.decides and len(verdict.waiting) > 0,
        fact=f"{len(verdict.waiting)} waiting",
    )
    gives = {**tried.gives, "needs no server but Postgres": contender.servers == ("postgres",)}
    for what, given in gives.items():
        engine.figure(what, float(given), "1: seen here")


def claim_rates(run: Run, rates: Mapping[str, float]) -> None:
    run.about(OWN.name, topics=[TOPICS[OWN]]).claim(
        "our orchestrator, which writes in batches, ends more sagas a second than any other orchestrator here",
        max(rates, key=lambda name: rates[name]) == OWN.name,
        fact=", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
    )


def claim_without(run: Run, engines: Comparison) -> None:
    on, off = engines.going_on(True), engines.going_on(False)
    run.claim(
        "one worker of two stays dead: its sagas go on with the other one, but those of DBOS, which wait for it, and"
        " those of the choreography, in which nobody does its part",
        set(off) == {contenders.DBOS.name, contenders.CHOREOGRAPHY.name},
        topics=list(TOPICS.values()),
        fact=f"go on: {', '.join(on)}; wait: {', '.join(off)}",
    )


def claim_code(run: Run, tried: Mapping[Contender, Tried]) -> None:
    comparison.note_code(run)
    lines, uncounted = comparison.carried_out(tried)
    for name, count in lines.items():
        run.figure("code that its workers carried out", count, "lines of Python", variant=name)
    run.about(OWN.name, topics=list(TOPICS.values())).claim(
        "an engine of one's own is the most code to write and to answer for, of what the workers carried out",
        max(lines, key=lambda name: lines[name]) == OWN.name and not uncounted,
        fact=", ".join(f"{name} {count}" for name, count in lines.items())
        + "".join(f"; not counted: {one}" for one in uncounted),
    )


if __name__ == "__main__":
    experiment.main()
