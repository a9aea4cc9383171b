"""Answers come twice, too late, or to a worker that is dead: does our orchestrator still end every saga rightly?

All replies come a second time; a host stands still until its answers are too late; and a worker is killed, and does not
come back. What makes it right is one function: saga/orchestrator/machine.py, happen.
"""

import msgspec
from saga.orchestrator.definition import Retry, read, timed
from saga.orchestrator.store import publish
from saga.services.invariant import Ending
from saga.stage.fates import Fates
from saga.stage.orchestrator import Trial, number, set_up
from saga.windows import WorkerWindow

from shared.experiment import Experiment, Run
from shared.faults import Faults, require
from shared.history import History
from shared.postgres import Connection, connect
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
OFTEN = Retry(attempts=60, first=0.05, longest=0.5)  # no step is given up because the machine stands still
SAGAS = "select * from sagas order by id"
IGNORED = "select count(*) from saga_log where note like '% ignored: %'"
IMPATIENT = msgspec.structs.replace(
    timed(read(), attempt=0.1, retry=Retry(attempts=2, first=0.02), whole=60.0), version=2, undo_timeout=1.0
)
GIVEN_UP = f"select count(*) from sagas where version = {IMPATIENT.version} and undoing"  # noqa: S608


@experiment.run
def main(run: Run) -> None:
    count, patience = run.pick(smoke=(12, 0.5), demo=(40, 1.0), full=(100, 3.0))
    run.parameters.update({"sagas per fault": count, "seconds to a time-out": patience})
    trial = set_up(run, "right", timed(read(), patience, OFTEN, 120.0), Fates(seed=run.seed), workers=2)
    with (
        run.step(f"{count} sagas, whose replies then come a second time"),
        connect(trial.office.conninfo) as connection,
    ):
        host, worker, other = trial.host(), trial.worker(0), trial.worker(1)
        trial.begin(count)
        trial.await_end()
        trial.close(host, worker, other)
        repeat_replies(run, trial, connection)
    with run.step("the host stands still until answers are too late"), connect(trial.office.conninfo) as connection:
        stand_still(run, trial, connection, count)
    run.judge(trial.name, variant=RIGHT, fault="SIGSTOP")
    with run.step("a worker is killed, and does not come back"):
        stand_in(run, count, patience)


def repeat_replies(run: Run, trial: Trial, connection: Connection) -> None:
    """Send the whole topic of replies once more, under the same ids."""
    right = run.about(RIGHT)
    before, noted = connection.execute(SAGAS).fetchall(), number(connection, IGNORED)
    replies = trial.repeat(trial.office.topics.replies)
    with trial.worker(0), trial.worker(1):
        until("all of them to be noted", lambda: number(connection, IGNORED) - noted >= replies)
    after = connection.execute(SAGAS).fetchall()
    right.claim(
        "every reply of the run comes a second time: no saga changes, and each of them is noted",
        before == after and replies > 0,
        topics=[f"{MADE}/state-machine"],
        fact=f"{replies} replies again, {number(connection, IGNORED) - noted} noted as ignored",
    )


def stand_still(run: Run, trial: Trial, connection: Connection, count: int) -> None:
    """SIGSTOP of the host until every step has run out of attempts; then it does all that it was asked, late."""
    right = run.about(RIGHT)
    publish(connection, IMPATIENT)
    before, faults = number(connection, IGNORED), Faults(run.recorder(trial.name, "experiment"))
    host, worker, other = trial.host(), trial.worker(0), trial.worker(1)
    with faults.paused(host):
        trial.begin(count, IMPATIENT)
        until("every saga to give up", lambda: number(connection, GIVEN_UP) == count)
    trial.await_end()
    standing, came_late = trial.close(host, worker, other), number(connection, IGNORED) - before
    require(History.read(trial.path), "SIGSTOP")
    undone = [standing.endings.get(order.id, Ending.COMPENSATED) for order in trial.rounds[-1]]
    right.claim(
        "a step that nobody answers in time is undone as well, and its answer that comes later changes nothing",
        not standing.violations and set(undone) == {Ending.COMPENSATED} and came_late >= count,
        topics=[f"{MADE}/timeout-handling"],
        fact=f"{count} sagas given up, {came_late} answers too late, {len(standing.violations)} violations",
    )


def stand_in(run: Run, count: int, patience: float) -> None:
    """What the dead worker had committed and not sent, its time-out has sent by the other."""
    right = run.about(RIGHT)
    trial = set_up(run, "gone", timed(read(), patience, OFTEN, 120.0), workers=2)
    host, other = trial.host(), trial.worker(1)
    trial.run_into(trial.worker(0, WorkerWindow.COMMITTED), count)
    trial.await_end()
    standing = trial.close(host, other)
    history = run.judge(trial.name, variant=RIGHT, fault=f"SIGKILL {WorkerWindow.COMMITTED}")
    asked_again = {op.key for op in history.delivered if op.value.endswith("#2")}
    replies = [op for op in history.delivered if op.process == "worker-1" and op.topic == trial.office.topics.replies]
    others = sum(op.partition % 2 == 0 for op in replies)  # the share of worker 0
    right.claim(
        "a worker is killed before it sends, and never comes back: another asks and listens in its place",
        not standing.violations and standing.count(Ending.COMPLETE) == count and min(others, len(asked_again)) > 0,
        topics=[f"{MADE}/saga-orchestrator-service"],
        fact=f"{standing.count(Ending.COMPLETE)} of {count} orders complete, {len(asked_again)} of them asked again;"
        f" {others} of {len(replies)} replies were for the dead one",
    )


if __name__ == "__main__":
    experiment.main()
