"""Temporal in operation: what do an operator, a deadline and a change of the code do to sagas that are under way?

The popular ways beside the right ones: an execution timeout as the saga's deadline, and a change without a patch
(saga/wrong/temporal_versions.py: Unpatched, beside OrderSaga._plan in saga/engines/temporal/workflow.py).
"""

from functools import partial

from saga.engines.temporal.messages import Phase
from saga.engines.temporal.workflow import STEPS_BEFORE, OrderSaga
from saga.order import STEPS, Action
from saga.stage import temporal as stage
from saga.wrong.temporal_versions import Before, Unpatched

from shared.experiment import Experiment, Run
from shared.threads import begin

experiment = Experiment(
    title="Temporal: operators, deadlines, a change of the code",
    servers=("postgres", "temporal"),
    topics=(
        "I.4/orchestration-tools/temporal-io",
        "I.4/orchestration-based-saga/centralized-state-tracking",
        "I.4/orchestration-implementation/timeout-handling",
        "I.4/error-handling/saga-timeout",
        "I.4/error-handling/manual-intervention",
        "I.4/error-handling/dead-letter-handling",
    ),
)
TEMPORAL = "I.4/orchestration-tools/temporal-io"
TIMEOUT, UNPATCHED = "execution timeout as deadline", "changed without a patch"


@experiment.run
def main(run: Run) -> None:
    """The parts wait for timeouts most of the time, so they are played side by side, and their claims made in turn."""
    changing = begin(partial(stage.change, run, before=Before, wrong=Unpatched, right=OrderSaga))
    running_late, operating = begin(partial(stage.run_late, run)), begin(partial(stage.operate, run))
    with run.step("the workflow is changed while sagas run, without a patch and with it"):
        changed = changing.result()
    claim_change(run, changed)
    with run.step("sagas run out of time, by a timer of their own and by the server's timeout"):
        late = running_late.result()
    claim_deadline(run, late)
    with run.step("an operator aborts sagas, and mends others that cannot be compensated"):
        operated = operating.result()
    claim_operator(run, operated)
    with run.step("workflows that another program began, with orders that nobody can read"):
        stage.claim_unreadable(run, [TEMPORAL, "I.4/error-handling/dead-letter-handling"])


def claim_operator(run: Run, found: stage.Operated) -> None:
    right = run.about(stage.RIGHT)
    count, standing = len(found.running), found.standing
    right.claim(
        "a query tells where a running saga stands, and what undoing it would take",
        all(
            (each.status, each.doing, each.undo) == (Phase.RUNNING, Action.SHIP, stage.BACKWARD)
            for each in found.running
        ),
        topics=["I.4/orchestration-based-saga/centralized-state-tracking"],
        fact=f"{count} sagas: {found.running[0].status}, {found.running[0].doing}",
    )
    aborted = [each for each in found.ended.values() if each.reason.startswith("aborted")]
    right.claim(
        "an operator aborts running sagas by a signal: each is undone in all services",
        len(aborted) == count and not standing.violations and len(standing.compensated) == len(found.ended),
        topics=["I.4/error-handling/manual-intervention", TEMPORAL],
        fact=f"{len(aborted)} of {count} sagas {aborted[0].status}, {aborted[0].reason}",
    )
    parked = [each for each in found.parked if each.status is Phase.PARKED]
    right.claim(
        "a compensation that keeps failing is on the operator's list with its reason, and goes on when it is mended",
        len(parked) == len(found.parked) and stage.counted(found.ended, Phase.COMPENSATED) == len(found.ended),
        topics=["I.4/error-handling/dead-letter-handling", "I.4/error-handling/manual-intervention"],
        fact=f"{len(parked)} of {len(found.parked)} sagas: {found.parked[0].reason}",
    )


def claim_deadline(run: Run, late: stage.Late) -> None:
    right = run.about(stage.RIGHT, topics=["I.4/error-handling/saga-timeout"])
    undone, left = late.undone(late.ended), len(late.wrong.inconsistent)
    right.claim(
        "a saga that is out of time by a timer of its own undoes what it has done",
        not late.right.violations and undone == stage.counted(late.ended, Phase.COMPENSATED) == late.count,
        fact=f"{undone} of {late.count} undone: {next(iter(late.ended.values())).reason}",
    )
    right.claim(
        "an attempt that beats and hangs is found out by its own time limit, and its step is undone with all the rest",
        not late.right.violations
        and late.undone(late.hung) == stage.counted(late.hung, Phase.COMPENSATED) == late.count
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


def claim_change(run: Run, found: stage.Changed) -> None:
    right = run.about(stage.RIGHT, topics=[TEMPORAL])
    count, complete = found.count, len(found.standing.complete)
    run.about(UNPATCHED, wrong_way=True, topics=[TEMPORAL]).claim(
        "changed without a patch: no saga that began before goes on, until another worker comes",
        len(found.refused) == count and found.shipped == 0,
        fact=f"{len(found.refused)} of {count}: {found.refused[0][:140]}",
    )
    right.claim(
        "changed with a patch: sagas that began before end by the old steps, those that begin now by the new ones",
        (found.old, found.new) == ([list(STEPS_BEFORE)] * count, [list(STEPS)] * count) and complete == 2 * count,
        fact=f"{complete} of {2 * count} complete; before: {', '.join(found.old[0])}; now: {', '.join(found.new[0])}",
    )
    refused = {code: sum(map(bool, replays)) for code, replays in found.replayed.items()}
    right.claim(
        "a replay of their histories tells the two changes apart before anything is deployed",
        refused == {"OrderSaga": 0, "Unpatched": count},
        fact=f"{count} histories; they refute {refused}",
    )


if __name__ == "__main__":
    experiment.main()
