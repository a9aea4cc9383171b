"""Temporal: worker and server are killed before, in and after every effect. Does each saga end, with its effects once?

The same saga is also deployed in the popular ways: an activity without an idempotency key, a compensation registered
after its call, an execution timeout as the saga's deadline, and a change without a patch. The lines that differ are in
saga/wrong: temporal_mistakes.py (Keyless, CompensateAfter) and temporal_versions.py (Unpatched).
"""

from collections.abc import Callable
from functools import partial
from threading import Semaphore
from typing import Any

from saga.engines.temporal.histories import actions, asked
from saga.engines.temporal.messages import USUAL, Status
from saga.engines.temporal.workflow import STEPS_BEFORE
from saga.order import SERVICE, STEPS, Action
from saga.services.invariant import Ending, Standing, judge
from saga.stage import temporal as plays
from saga.stage.engines import temporal
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.temporal import Workflows
from saga.stage.temporal import RIGHT
from saga.windows import EffectWindow

from shared.experiment import Experiment, Run
from shared.threads import begin

experiment = Experiment(
    title="Temporal: worker and server killed at every effect",
    servers=("postgres", "temporal"),
    topics=(
        *("I.4/orchestration-tools/temporal-io", "I.4/orchestration-based-saga/centralized-state-tracking"),
        *(f"I.4/saga-fundamentals/{name}" for name in ("sequence-of-local-transactions", "compensation-for-rollback")),
        "I.4/orchestration-implementation/timeout-handling",
        *(f"I.4/compensation-design/{name}" for name in ("idempotent-compensations", "compensation-ordering")),
        *(f"I.4/error-handling/{name}" for name in ("saga-timeout", "manual-intervention", "dead-letter-handling")),
    ),
)
TEMPORAL = "I.4/orchestration-tools/temporal-io"
TIMEOUT, UNPATCHED = "execution timeout as deadline", "changed without a patch"


@experiment.run
def main(run: Run) -> None:
    """The parts wait for timeouts most of the time, so they are played side by side, and their claims made in turn."""
    slots = Semaphore(run.pick(6, 3, 3))
    playing = [(begin(partial(play, run), slots), text, claim) for text, play, claim in PARTS]
    for part, text, claim in playing:
        with run.step(text):
            found = part.result()
        claim(run, found)
    with run.step("workflows that another program began, with orders that nobody can read"):
        topics = [TEMPORAL, "I.4/error-handling/dead-letter-handling"]
        claim_foreign(run, "Temporal", temporal.opened, Workflows, topics, variant=RIGHT)


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


def claim_operator(run: Run, found: plays.Operated) -> None:
    right = run.about(RIGHT)
    count, standing = len(found.running), found.standing
    right.claim(
        "a query tells where a running saga stands, and what undoing it would take",
        all(
            (each.status, each.doing, each.undo) == (Status.RUNNING, Action.SHIP, plays.BACKWARD)
            for each in found.running
        ),
        topics=["I.4/orchestration-based-saga/centralized-state-tracking"],
        fact=f"{count} sagas: {found.running[0].status}, {found.running[0].doing}",
    )
    aborted = [each for each in found.ended.values() if each.reason.startswith("aborted")]
    right.claim(
        "an operator aborts running sagas by a signal: each is undone in all services",
        len(aborted) == count and not standing.violations and standing.count(Ending.COMPENSATED) == len(found.ended),
        topics=["I.4/error-handling/manual-intervention", TEMPORAL],
        fact=f"{len(aborted)} of {count} sagas {aborted[0].status}, {aborted[0].reason}",
    )
    parked = [each for each in found.parked if each.status is Status.PARKED]
    right.claim(
        "a compensation that keeps failing is on the operator's list with its reason, and goes on when it is mended",
        len(parked) == len(found.parked) and plays.counted(found.ended, Status.COMPENSATED) == len(found.ended),
        topics=["I.4/error-handling/dead-letter-handling", "I.4/error-handling/manual-intervention"],
        fact=f"{len(parked)} of {len(found.parked)} sagas: {found.parked[0].reason}",
    )


def claim_deadline(run: Run, late: plays.Late) -> None:
    right = run.about(RIGHT, topics=["I.4/error-handling/saga-timeout"])
    undone, left = late.undone(late.ended), late.wrong.count(Ending.INCONSISTENT)
    right.claim(
        "a saga that is out of time by a timer of its own undoes what it has done",
        not late.right.violations and undone == plays.counted(late.ended, Status.COMPENSATED) == late.count,
        fact=f"{undone} of {late.count} undone: {next(iter(late.ended.values())).reason}",
    )
    right.claim(
        "an attempt that beats and hangs is found out by its own time limit, and its step is undone with all the rest",
        not late.right.violations
        and late.undone(late.hung) == plays.counted(late.hung, Status.COMPENSATED) == late.count
        and late.given_up == [{Action.SHIP: "START_TO_CLOSE"}] * late.count,
        topics=["I.4/orchestration-implementation/timeout-handling"],
        fact=f"{late.undone(late.hung)} of {late.count} undone: {next(iter(late.hung.values())).reason}"
        f" after {late.limits.attempt:g} s; without heartbeats, after {late.limits.heartbeat:g} s",
    )
    run.about(TIMEOUT, wrong_way=True, topics=["I.4/error-handling/saga-timeout"]).claim(
        "an execution timeout ends the workflow where it stands: what is done stays done, and nobody undoes it",
        set(late.closed) == {"TIMED_OUT"} and left == late.count,
        fact=f"{left} of {late.count}; {next(iter(late.wrong.violations), '')}",
    )


def claim_change(run: Run, found: plays.Changed) -> None:
    right = run.about(RIGHT, topics=[TEMPORAL])
    count, complete = found.count, found.standing.count(Ending.COMPLETE)
    run.about(UNPATCHED, wrong_way=True, topics=[TEMPORAL]).claim(
        "changed without a patch: no saga that began before goes on, until another worker comes",
        len(found.refused) == count and found.shipped == 0,
        fact=f"{len(found.refused)} of {count}: {found.refused[0][:140]}",
    )
    old, new = ([actions(history) for history in histories] for histories in (found.old, found.new))
    right.claim(
        "changed with a patch: sagas that began before end by the old steps, those that begin now by the new ones",
        (old, new) == ([list(STEPS_BEFORE)] * count, [list(STEPS)] * count) and complete == 2 * count,
        fact=f"{complete} of {2 * count} complete; before: {', '.join(old[0])}; now: {', '.join(new[0])}",
    )
    refused = {code: sum(map(bool, replays)) for code, replays in found.replayed.items()}
    right.claim(
        "a replay of their histories tells the two changes apart before anything is deployed",
        refused == {"OrderSaga": 0, "Unpatched": count},
        fact=f"{count} histories; they refute {refused}",
    )


PARTS: list[tuple[str, Callable[[Run], Any], Callable[[Run, Any], None]]] = [
    ("kill -9 of workers in activities and compensations", plays.kill_workers, claim_workers),
    ("kill -9 of the server while all activities of a saga are under way", plays.kill_server, claim_server),
    ("the workflow is changed while sagas run, without a patch and with it", plays.change, claim_change),
    ("kill -9 of workers when a charge is done and nobody knows", plays.lose_outcomes, claim_outcomes),
    ("sagas run out of time, by a timer of their own and by the server's timeout", plays.run_late, claim_deadline),
    ("an operator aborts sagas, and mends others that cannot be compensated", plays.operate, claim_operator),
]


if __name__ == "__main__":
    experiment.main()
