"""Temporal: worker and server are killed before, in and after every effect. Does each saga end, with its effects once?

The same saga is also deployed in two popular ways, both in saga/wrong/temporal_mistakes.py: an activity without an
idempotency key (Keyless), and a compensation registered after its call (CompensateAfter).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from saga.engines.temporal.histories import actions, asked
from saga.engines.temporal.messages import USUAL, Status
from saga.order import SERVICE, STEPS, Action
from saga.services.invariant import Ending, Standing, judge
from saga.stage import temporal as plays
from saga.stage.temporal import RIGHT
from saga.windows import EffectWindow

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


@experiment.run
def main(run: Run) -> None:
    """The parts wait for timeouts most of the time, so they are played side by side, and their claims made in turn."""
    playing = [(begin(partial(play, run)), text, claim) for text, play, claim in PARTS]
    for part, text, claim in playing:
        with run.step(text):
            found = part.result()
        claim(run, found)


def claim_workers(run: Run, killed: plays.Killed) -> None:
    right = run.about(RIGHT, topics=["I.4/compensation-design/idempotent-compensations"])
    right.judge("worker", fault="SIGKILL")
    standing = claim_ended(run, killed, "worker")
    histories = [(action, killed.stage.history(one)) for action, one in killed.orders]
    again = [each for action, history in histories for each in asked(history) if each.action is action]
    backward = [each for each in again if each.action in plays.BACKWARD]
    right.claim(
        "a compensation whose worker was killed is carried out again, and undoes nothing twice",
        len(backward) > 0 and all(each.attempts > 1 for each in backward) and not standing.violations,
        fact=f"{len(backward)} compensations, {sum(each.attempts for each in backward)} attempts;"
        f" {len(standing.violations)} violations in money, stock and orders",
    )
    missed = [each for each in again if each.timed_out == "HEARTBEAT"]
    right.claim(
        "a dead worker is found out by its missing heartbeats, long before an attempt's time is up",
        len(missed) == len(killed.orders),
        topics=["I.4/orchestration-implementation/timeout-handling"],
        fact=f"{len(missed)} of {len(killed.orders)} after {killed.stage.heartbeat:g} s without one;"
        f" an attempt may take {USUAL.attempt:g} s",
    )
    orders = [actions(history) for action, history in histories if action in plays.BACKWARD]
    right.claim(
        "what may have been done is undone in reverse order, the step of which nobody knows included",
        all(found == [*STEPS, *plays.BACKWARD] for found in orders) and len(orders) > 0,
        topics=["I.4/compensation-design/compensation-ordering"],
        fact=f"{len(orders)} histories: {', '.join(orders[0][len(STEPS) :])}",
    )


def claim_server(run: Run, killed: plays.Killed) -> None:
    run.judge("server", variant=RIGHT, fault="SIGKILL, restart")
    claim_ended(run, killed, "server")
    for window, seen in killed.seen.items():
        claim_transactions(run, window, seen)


def claim_transactions(run: Run, window: EffectWindow, seen: dict[Action, set[str]]) -> None:
    right = run.about(RIGHT)
    done = window is EffectWindow.AFTER
    expected = {step: {SERVICE[each] for each in STEPS[: number + done]} for number, step in enumerate(STEPS)}
    right.claim(
        f"a row of local transactions: {window} of a step, what came before is committed and nothing of what comes",
        all(seen[step] == services for step, services in expected.items()),
        topics=["I.4/saga-fundamentals/sequence-of-local-transactions"],
        fact="; ".join(f"{step}: in {', '.join(sorted(seen[step])) or 'no service'}" for step in STEPS),
    )


def claim_ended(run: Run, killed: plays.Killed, who: str) -> Standing:
    """Returns how all its orders stand."""
    right = run.about(RIGHT, topics=[TEMPORAL])
    for window, seconds in killed.seconds.items():
        run.figure("until the sagas have ended", seconds, "s", variant=f"{who} killed", x=window, x_label="killed")
    standing, forward = judge(killed.shop), sum(action in STEPS for action, _ in killed.orders)
    complete, compensated = standing.count(Ending.COMPLETE), standing.count(Ending.COMPENSATED)
    right.claim(
        f"{who} killed around the effect of an activity: every saga ends, and has its effects once",
        not standing.violations and (complete, compensated) == (forward, len(killed.orders) - forward),
        fact=f"{complete} sagas complete, {compensated} undone, {len(standing.violations)} violations;"
        f" killed {', '.join(killed.seconds)}",
    )
    return standing


def claim_outcomes(run: Run, lost: plays.Lost) -> None:
    keyless = run.about(plays.KEYLESS, wrong_way=True)
    early = run.about(plays.AFTER, wrong_way=True)
    right = run.about(RIGHT, topics=["I.4/saga-fundamentals/compensation-for-rollback"])
    run.judge("unknown", fault="SIGKILL")
    for way, standing in lost.standings.items():
        wrong, count = len(standing.violations), lost.count
        run.figure("customers charged wrongly", wrong, "customers", variant=way, wrong_way=way != RIGHT, sagas=count)
    undone, missing, doubled = (lost.standings[way] for way in (RIGHT, plays.AFTER, plays.KEYLESS))
    right.claim(
        "nobody knows whether the customer was charged: the charge is undone with all the rest",
        not undone.violations and undone.count(Ending.COMPENSATED) == lost.count,
        fact=f"{undone.count(Ending.COMPENSATED)} of {lost.count} sagas undone in all services",
    )
    early.claim(
        "registered after the call, a compensation is missing: the saga says undone, the customer has paid",
        missing.count(Ending.INCONSISTENT) == plays.counted(lost.ended[plays.AFTER], Status.COMPENSATED) == lost.count,
        topics=["I.4/saga-fundamentals/compensation-for-rollback"],
        fact=f"{missing.count(Ending.INCONSISTENT)} of {lost.count}; {next(iter(missing.violations), '')}",
    )
    twice = [each for each in doubled.violations if "charged 2" in each]
    keyless.claim(
        "an activity is carried out at least once: without a key, the attempt after the kill charges again",
        len(twice) == lost.count,
        topics=[TEMPORAL],
        fact=f"{len(twice)} of {lost.count}; {next(iter(twice), '')}",
    )


PARTS: list[tuple[str, Callable[[Run], Any], Callable[[Run, Any], None]]] = [
    ("kill -9 of workers in activities and compensations", plays.kill_workers, claim_workers),
    ("kill -9 of the server while all activities of a saga are under way", plays.kill_server, claim_server),
    ("kill -9 of workers when a charge is done and nobody knows", plays.lose_outcomes, claim_outcomes),
]


if __name__ == "__main__":
    experiment.main()
