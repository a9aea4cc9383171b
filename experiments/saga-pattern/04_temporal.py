"""Temporal: worker and server are killed before, in and after every effect. Does each saga end, with its effects once?

The same saga is also deployed in two popular ways, both in saga/wrong/temporal_mistakes.py: an activity without an
idempotency key (Keyless.ask, beside Activities.ask), and a compensation registered after its call
(CompensateAfter._step, beside OrderSaga._step in saga/engines/temporal/workflow.py).
"""

from functools import partial

from saga.engines.temporal.activities import Activities
from saga.engines.temporal.workflow import OrderSaga
from saga.order import STEPS
from saga.stage import temporal as stage
from saga.wrong.temporal_mistakes import CompensateAfter, Keyless

from shared.experiment import Experiment, Run
from shared.threads import begin

experiment = Experiment(
    title="Temporal: worker and server killed at every effect",
    servers=("postgres", "temporal"),
    topics=(
        "I.4/orchestration-tools/temporal-io",
        "I.4/saga-fundamentals/sequence-of-local-transactions",
        "I.4/saga-fundamentals/compensation-for-rollback",
        "I.4/orchestration-implementation/timeout-handling",
        "I.4/compensation-design/idempotent-compensations",
        "I.4/compensation-design/compensation-ordering",
    ),
)
TEMPORAL = "I.4/orchestration-tools/temporal-io"
RIGHT = stage.Deployment(stage.RIGHT, OrderSaga, Activities)
AFTER = stage.Deployment("compensation registered after the call", CompensateAfter, Activities)
KEYLESS = stage.Deployment("no idempotency key", OrderSaga, Keyless, limits=stage.FEW)


@experiment.run
def main(run: Run) -> None:
    """The parts wait for timeouts most of the time, so they are played side by side, and their claims made in turn."""
    workers, server = begin(partial(stage.kill_workers, run)), begin(partial(stage.kill_server, run))
    outcomes = begin(partial(stage.lose_outcomes, run, RIGHT, AFTER, KEYLESS))
    with run.step("kill -9 of workers in activities and compensations"):
        killed = workers.result()
    claim_workers(run, killed)
    with run.step("kill -9 of the server while all activities of a saga are under way"):
        killed = server.result()
    claim_server(run, killed)
    with run.step("kill -9 of workers when a charge is done and nobody knows"):
        lost = outcomes.result()
    claim_outcomes(run, *lost)


def claim_workers(run: Run, killed: stage.Killed) -> None:
    right = run.about(RIGHT.name, topics=["I.4/compensation-design/idempotent-compensations"])
    right.judge("worker", fault="SIGKILL")
    claim_ended(run, killed, "worker")
    again, violations = killed.asked(), killed.standing.violations
    backward = [each for each in again if each.action not in STEPS]
    right.claim(
        "a compensation whose worker was killed is carried out again, and undoes nothing twice",
        len(backward) > 0 and all(each.attempts > 1 for each in backward) and not violations,
        fact=f"{len(backward)} compensations, {sum(each.attempts for each in backward)} attempts;"
        f" {len(violations)} violations in money, stock and orders",
    )
    missed = [each for each in again if each.timed_out == "HEARTBEAT"]
    right.claim(
        "a dead worker is found out by its missing heartbeats, long before an attempt's time is up",
        len(missed) == len(killed.orders),
        topics=["I.4/orchestration-implementation/timeout-handling"],
        fact=f"{len(missed)} of {len(killed.orders)} after {killed.stage.heartbeat:g} s without one;"
        f" an attempt may take {killed.stage.attempt:g} s",
    )
    undone = killed.undone()
    right.claim(
        "what may have been done is undone in reverse order, the step of which nobody knows included",
        all(found == [*STEPS, *stage.BACKWARD] for found in undone) and len(undone) > 0,
        topics=["I.4/compensation-design/compensation-ordering"],
        fact=f"{len(undone)} histories: {', '.join(undone[0][len(STEPS) :])}",
    )


def claim_server(run: Run, killed: stage.Killed) -> None:
    right = run.about(RIGHT.name, topics=["I.4/saga-fundamentals/sequence-of-local-transactions"])
    right.judge("server", fault="SIGKILL, restart")
    claim_ended(run, killed, "server")
    for window, seen in killed.seen.items():
        right.claim(
            f"a row of local transactions: {window} of a step, what came before is committed and nothing of what comes",
            all(seen[step] == stage.before(step, window) for step in STEPS),
            fact="; ".join(f"{step}: in {', '.join(sorted(seen[step])) or 'no service'}" for step in STEPS),
        )


def claim_ended(run: Run, killed: stage.Killed, who: str) -> None:
    for window, seconds in killed.seconds.items():
        run.figure("until the sagas have ended", seconds, "s", variant=f"{who} killed", x=window, x_label="killed")
    standing, forward = killed.standing, killed.forward
    complete, compensated = len(standing.complete), len(standing.compensated)
    run.about(RIGHT.name, topics=[TEMPORAL]).claim(
        f"{who} killed around the effect of an activity: every saga ends, and has its effects once",
        not standing.violations and (complete, compensated) == (forward, len(killed.orders) - forward),
        fact=f"{complete} sagas complete, {compensated} undone, {len(standing.violations)} violations;"
        f" killed {', '.join(killed.seconds)}",
    )


def claim_outcomes(run: Run, right: stage.Lost, early: stage.Lost, keyless: stage.Lost) -> None:
    rollback, count = "I.4/saga-fundamentals/compensation-for-rollback", right.count
    for way, lost in ((RIGHT, right), (AFTER, early), (KEYLESS, keyless)):
        about = run.about(way.name, wrong_way=way is not RIGHT)
        about.figure("customers charged wrongly", len(lost.standing.violations), "customers", sagas=count)
    undone = len(right.standing.compensated)
    run.about(RIGHT.name, topics=[rollback]).claim(
        "nobody knows whether the customer was charged: the charge is undone with all the rest",
        not right.standing.violations and undone == count,
        fact=f"{undone} of {count} sagas undone in all services",
    )
    half = early.standing.inconsistent
    run.about(AFTER.name, wrong_way=True, topics=[rollback]).claim(
        "registered after the call, a compensation is missing: the saga says undone, the customer has paid",
        len(half) == early.said_undone == count,
        fact=f"{len(half)} of {count}; {next(iter(early.standing.violations), '')}",
    )
    twice = [each for each in keyless.standing.violations if "charged 2" in each]
    run.about(KEYLESS.name, wrong_way=True, topics=[TEMPORAL]).claim(
        "an activity is carried out at least once: without a key, the attempt after the kill charges again",
        len(twice) == count,
        fact=f"{len(twice)} of {count}; {next(iter(twice), '')}",
    )


if __name__ == "__main__":
    experiment.main()
