"""Answers come twice, too late, or to a worker that is dead: does our orchestrator still end every saga correctly?

All replies come a second time; a host pauses until its answers are too late; and a worker is killed, and does not come
back. One function handles all three: `happen` in saga/orchestrator/machine.py.
"""

from saga.stage import orchestrator as stage
from saga.stage.fates import Fates
from saga.windows import WorkerWindow

from shared.experiment import Experiment, Run
from shared.wait import until

MADE = "I.4/orchestration-implementation"
experiment = Experiment(
    title="Our own orchestrator: answers twice, late, or to the dead",
    servers=("postgres", "kafka"),
    topics=(
        "I.4/orchestration-implementation/saga-orchestrator-service",
        "I.4/orchestration-implementation/state-machine",
        "I.4/orchestration-implementation/timeout-handling",
    ),
)
RIGHT = "durable, keyed"
SAGAS = "select * from sagas order by id"


@experiment.run
def main(run: Run) -> None:
    count, patience = run.pick(smoke=(12, 0.5), demo=(40, 1.0), full=(100, 3.0))
    run.parameters.update({"sagas per fault": count, "seconds to a time-out": patience})
    trial = stage.shared_by_two(run, "right", patience, Fates(seed=run.seed))
    with run.step(f"{count} sagas, whose replies then come a second time"):
        repeat_replies(run, trial, count)
    with run.step("the host stands still until answers are too late"):
        stand_still(run, trial, count)
    run.judge(trial.name, variant=RIGHT, fault="SIGSTOP")
    with run.step("a worker is killed, and does not come back"):
        stand_in(run, count, patience)


def repeat_replies(run: Run, trial: stage.Trial, count: int) -> None:
    """Send the whole topic of replies once more, under the same ids."""
    host, worker, other = trial.host(), trial.worker(0), trial.worker(1)
    trial.begin(count)
    trial.await_end()
    trial.close(host, worker, other)
    before, ignored = trial.ask(SAGAS), trial.ignored()
    replies = trial.repeat(trial.office.topics.replies)
    with trial.worker(0), trial.worker(1):
        until("all of them to be noted", lambda: trial.ignored() - ignored >= replies)
    run.about(RIGHT).claim(
        "every reply of the run comes a second time: no saga changes, and each of them is noted",
        before == trial.ask(SAGAS) and replies > 0,
        topics=[f"{MADE}/state-machine"],
        fact=f"{replies} replies again, {trial.ignored() - ignored} noted as ignored",
    )


def stand_still(run: Run, trial: stage.Trial, count: int) -> None:
    """SIGSTOP of the host until every step has run out of attempts; then it does all that it was asked, late."""
    before = trial.ignored()
    host, worker, other = trial.host(), trial.worker(0), trial.worker(1)
    trial.stand_still(host, count)
    trial.await_end()
    standing, came_late = trial.close(host, worker, other), trial.ignored() - before
    undone = {order.id for order in trial.rounds[-1]} - standing.complete - standing.inconsistent
    run.about(RIGHT).claim(
        "a step that nobody answers in time is undone as well, and its answer that comes later changes nothing",
        not standing.violations and len(undone) == count and came_late >= count,
        topics=[f"{MADE}/timeout-handling"],
        fact=f"{count} sagas given up, {came_late} answers too late, {len(standing.violations)} violations",
    )


def stand_in(run: Run, count: int, patience: float) -> None:
    """What the dead worker had committed and not sent, its time-out has sent by the other."""
    right, trial = run.about(RIGHT), stage.shared_by_two(run, "gone", patience)
    host, other = trial.host(), trial.worker(1)
    trial.run_into(trial.worker(0, WorkerWindow.COMMITTED), count)
    trial.await_end()
    standing = trial.close(host, other)
    history = trial.judge(right, fault=f"SIGKILL {WorkerWindow.COMMITTED}")
    asked_again = {op.key for op in history.delivered if op.value.endswith("#2")}
    replies = [op for op in history.delivered if op.process == "worker-1" and op.topic == trial.office.topics.replies]
    others = sum(op.partition % 2 == 0 for op in replies)  # the share of worker 0
    right.claim(
        "a worker is killed before it sends, and never comes back: another one sends and takes answers in its place",
        not standing.violations and len(standing.complete) == count and min(others, len(asked_again)) > 0,
        topics=[f"{MADE}/saga-orchestrator-service"],
        fact=f"{len(standing.complete)} of {count} orders complete, {len(asked_again)} of them asked again;"
        f" {others} of {len(replies)} replies were for the dead one",
    )


if __name__ == "__main__":
    experiment.main()
