"""Our own orchestrator, killed in every window: does every order end in all four services or in none?

Two workers move the same sagas on; one of them, and the host of the services, are killed in every window of their
protocols, while answers are lost by schedule. Three popular ways to build the same are put under the same kills, all in
saga/wrong/orchestrating.py: state in memory (MemoryStore), commands that are sent before the state is committed
(SendFirst, beside Orchestrator._transaction), services without idempotency keys (EachTime).
"""

from collections import Counter

from saga.orchestrator.definition import Retry, read, timed
from saga.orchestrator.machine import Status, Verb
from saga.orchestrator.operator import tell
from saga.orchestrator.worker import Orchestrator
from saga.services.invariant import Ending, Standing
from saga.stage import orchestrator as trials
from saga.stage.fates import Fates
from saga.stage.orchestrator import Trial, set_up
from saga.windows import HostWindow, WorkerWindow
from saga.wrong.orchestrating import EachTimeShop, SendFirst

from shared.checkers import duplicate_delivery, duplicate_effect
from shared.experiment import Experiment, Run
from shared.faults import require
from shared.history import History
from shared.postgres import Connection, connect

BASED, MADE = "I.4/orchestration-based-saga", "I.4/orchestration-implementation"
CUSTOM = "I.4/orchestration-tools/custom-implementation"
TOPICS = {
    BASED: (
        *("central-saga-orchestrator", "explicit-workflow-definition"),
        *("command-based-coordination", "centralized-state-tracking"),
    ),
    MADE: ("saga-orchestrator-service", "command-reply-pattern"),
}
experiment = Experiment(
    title="Our own orchestrator: killed in every window",
    servers=("postgres", "kafka"),
    topics=(*(f"{part}/{name}" for part, names in TOPICS.items() for name in names), CUSTOM),
)
RIGHT, MEMORY, EARLY, KEYLESS = "durable, keyed", "state in memory", "sent before commit", "no idempotency key"
# The windows in which a host has done something, and forgets by its death that it is answered.
DOUBLING = HostWindow.COMMITTED, HostWindow.SENT
WINDOWS = [*WorkerWindow, *HostWindow]
TWICE = "select saga, note from saga_log where note like '% done: %' group by saga, note having count(*) > 1"
# Where no answer is lost: what comes twice does so by the kill, not by a time-out.
PATIENT = timed(read(), attempt=60.0, retry=Retry(), whole=600.0)
OFTEN = Retry(attempts=60, first=0.05, longest=0.5)  # no step is given up because the machine stands still


@experiment.run
def main(run: Run) -> None:
    count, patience = run.pick(smoke=(12, 0.5), demo=(40, 1.0), full=(100, 3.0))
    run.parameters.update({"sagas per kill": count, "seconds to a time-out": patience})
    right = set_up(run, "right", timed(read(), patience, OFTEN, 120.0), Fates(seed=run.seed), workers=2)
    with run.step(f"{RIGHT}: kill -9 of a worker and of the host in every window"):
        standing = kill_everywhere(right, count)
    history = History.read(right.path)
    with connect(right.office.conninfo) as connection:
        claim_kills(run, right, standing, history)
        claim_tracking(run, right, standing, connection, history)
        claim_replies(run, right, history)
        claim_workers(run, connection, history)
    run.judge(right.name, variant=RIGHT, fault="SIGKILL")
    with run.step(f"{MEMORY}: the same kills of the worker"):
        forget(run, count)
    with run.step(f"{EARLY}: killed in between, and the operator decides otherwise"):
        send_early(run, count)
    with run.step(f"{KEYLESS}: the same kills of the host"):
        do_again(run, count)


def kill_everywhere(trial: Trial, count: int) -> Standing:
    """Whoever is killed is started again at once, to be killed in the next window; sagas of all rounds go on."""
    host, other = trial.host(), trial.worker(1)
    for window in WorkerWindow:
        trial.run_into(trial.worker(0, window), count)
    worker = trial.worker(0)
    host.stop()
    for of_host in HostWindow:
        trial.run_into(trial.host(of_host), count)
    host = trial.host()
    trial.await_end()
    return trial.close(host, worker, other)


def claim_kills(run: Run, trial: Trial, standing: Standing, history: History) -> None:
    right = run.about(RIGHT)
    for window in WINDOWS:
        require(history, f"SIGKILL {window}")
    endings = Counter(standing.endings.values())
    right.claim(
        "a worker or a host killed in any window: every order ends complete, or undone wherever it was begun",
        not standing.violations and endings[Ending.COMPLETE] > 0 and endings[Ending.COMPENSATED] > 0,
        topics=[f"{BASED}/central-saga-orchestrator", CUSTOM],
        fact=f"{len(WINDOWS)} kills, {len(trial.sagas)} sagas, {len(standing.violations)} violations",
    )
    again = sum(not found.value.endswith("/answer") for found in duplicate_delivery(history))
    twice = len(duplicate_effect(history))
    right.claim(
        "commands come again after a crash, read or sent anew, and no service does one of them twice",
        twice == 0 < again,
        topics=[f"{BASED}/command-based-coordination"],
        fact=f"{again} commands came again, {twice} effects doubled",
    )
    for killed, seconds in trials.recoveries(history).items():
        right.figure("time to the next message", seconds * 1000, "ms", x=killed, x_label="killed")
    trials.note_orders(run, RIGHT, False, standing, dict(zip(WINDOWS, trial.rounds, strict=True)))


def claim_tracking(run: Run, trial: Trial, standing: Standing, connection: Connection, history: History) -> None:
    right = run.about(RIGHT)
    rows = connection.execute("select id, status from sagas").fetchall()
    says = {Status.COMPLETED: Ending.COMPLETE, Status.COMPENSATED: Ending.COMPENSATED}
    # An order that was refused before any service had it is in no service.
    agree = [saga for saga, status in rows if standing.endings.get(saga, Ending.COMPENSATED) == says.get(status)]
    right.claim(
        "one table says how every order ended, and all four services agree with it",
        len(agree) == len(rows) == len(trial.sagas),
        topics=[f"{BASED}/centralized-state-tracking"],
        fact=f"{len(agree)} of {len(rows)} sagas",
    )
    wrong = trials.out_of_order(history, {saga: status == Status.COMPENSATED for saga, status in rows})
    right.claim(
        "whatever was killed, steps were asked for in the order of the definition and undone in reverse",
        not wrong,
        topics=[f"{BASED}/explicit-workflow-definition"],
        fact=f"{len(rows)} sagas, {len(wrong)} in another order",
    )


def claim_replies(run: Run, trial: Trial, history: History) -> None:
    right = run.about(RIGHT)
    commands = (op for op in history.delivered if not op.process.startswith("worker"))
    lost, asked = trial.lost_answers(), Counter(op.value.partition("#")[0] for op in commands)
    again = [request for request in lost if asked[request] > 1]
    right.claim(
        "an answer is lost: the request comes again under the same key, and the answer from the inbox",
        len(again) == len(lost) > 0 and not duplicate_effect(history),
        topics=[f"{MADE}/command-reply-pattern"],
        fact=f"{len(lost)} answers lost, {len(again)} requests came again",
    )


def claim_workers(run: Run, connection: Connection, history: History) -> None:
    right = run.about(RIGHT)
    readers = Counter(op.process for op in history.delivered if op.process.startswith("worker"))
    twice = connection.execute(TWICE).fetchall()
    right.claim(
        "two workers share the sagas, and every answer moves its saga on once",
        len(readers) == 2 and not twice,
        topics=[f"{MADE}/saga-orchestrator-service"],
        fact=f"{' and '.join(str(count) for count in readers.values())} replies read, {len(twice)} turns taken twice",
    )


def forget(run: Run, count: int) -> None:
    wrong = run.about(MEMORY, wrong_way=True)
    trial = set_up(run, "memory", PATIENT)
    host = trial.host()
    for window in WorkerWindow:
        trial.memory_worker(count, window).wait()
    standing = trial.close(host)
    run.judge(trial.name, variant=MEMORY, wrong_way=True, fault="SIGKILL")
    left = trials.note_orders(run, MEMORY, True, standing, dict(zip(WorkerWindow, trial.rounds, strict=True)))
    wrong.claim(
        "state in memory: a kill in any window leaves orders half done, and nobody knows of them any more",
        all(trials.broken(standing, orders) for orders in trial.rounds),
        topics=[CUSTOM],
        fact=f"{left} of {len(trial.sagas)} orders inconsistent for good",
    )


def send_early(run: Run, count: int) -> None:
    """The worker is killed between sending and commit, or just before the commit; the operator has all sagas undone."""
    left = {}
    for name, kind in (("early", SendFirst), ("after", Orchestrator)):
        trial = set_up(run, name, PATIENT)
        host = trial.host()
        trial.begin(count)
        trial.await_waiting(trial.office.topics.replies)
        trial.worker(0, WorkerWindow.SAVED, nth=1, kind=kind).wait()
        with connect(trial.office.conninfo) as connection:
            for saga in trial.sagas:
                tell(connection, saga, Verb.COMPENSATE)
        worker = trial.worker(0, kind=kind)
        trial.await_end()
        standing = trial.close(host, worker)
        early = kind is SendFirst
        run.judge(name, variant=EARLY if early else RIGHT, wrong_way=early, fault=f"SIGKILL {WorkerWindow.SAVED}")
        left[early] = trials.broken(standing, trial.rounds[0])
        if early:
            trials.note_orders(run, EARLY, True, standing, {WorkerWindow.SAVED: trial.rounds[0]})
    run.claim(
        "sent before the commit: a service does what no saga knows of, and it is not undone with the rest",
        left[True] > 0 == left[False],
        topics=[f"{BASED}/command-based-coordination"],
        fact=f"{left[True]} of {count} orders inconsistent; sent after the commit: {left[False]}",
        variant=EARLY,
        wrong_way=True,
    )


def do_again(run: Run, count: int) -> None:
    wrong = run.about(KEYLESS, wrong_way=True)
    trial = set_up(run, "keyless", PATIENT)
    trial.hosted = EachTimeShop(trial.shop.conninfos)
    worker, others = trial.worker(0), trial.host(services=("orders", "stock", "shipping"))
    for window in HostWindow:
        trial.begin(count)
        trial.await_waiting(trial.office.topics.commands["payments"])
        trial.host(window, ("payments",), nth=1).wait()
        with trial.host(services=("payments",)):  # stopped in order, it leaves nothing to be read again
            trial.await_end()
    standing = trial.close(others, worker)
    history = run.judge(trial.name, variant=KEYLESS, wrong_way=True, fault="SIGKILL")
    left = trials.note_orders(run, KEYLESS, True, standing, dict(zip(HostWindow, trial.rounds, strict=True)))
    wrong.claim(
        "no idempotency key: what was done and not yet answered is done again after the kill",
        [trials.broken(standing, orders) > 0 for orders in trial.rounds]
        == [window in DOUBLING for window in HostWindow],
        topics=[f"{MADE}/command-reply-pattern"],
        fact=f"{len(duplicate_effect(history))} effects doubled, {left} customers charged twice",
    )


if __name__ == "__main__":
    experiment.main()
