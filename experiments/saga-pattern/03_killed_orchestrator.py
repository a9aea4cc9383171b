"""Our own orchestrator, killed in every crash window: does every order end in all four services or in none?

Two workers move the same sagas on. One of them, and the host of the services, are killed in every crash window, while
answers are lost on a fixed schedule. Three popular ways to build an orchestrator get the same kills, all in
saga/wrong/orchestrating.py: state in memory (MemoryStore), commands sent before the state is committed (SendFirst,
beside Orchestrator._transaction in saga/orchestrator/worker.py), services without idempotency keys (EachTime, beside
`perform` in saga/services/participant.py).
"""

from collections import Counter

from saga.orchestrator.worker import Orchestrator
from saga.stage import orchestrator as stage
from saga.stage.fates import Fates
from saga.windows import HostWindow, WorkerWindow
from saga.wrong.orchestrating import EachTimeShop, MemoryStore, SendFirst

from shared.checkers import duplicate_delivery, duplicate_effect
from shared.experiment import Experiment, Run
from shared.faults import require

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


@experiment.run
def main(run: Run) -> None:
    count, patience = run.pick(smoke=(12, 0.5), demo=(20, 0.5), full=(100, 3.0))
    run.parameters.update({"sagas per kill": count, "seconds to a time-out": patience})
    with run.step(f"{RIGHT}: kill -9 of a worker and of the host in every window"):
        trial = stage.shared_by_two(run, "right", patience, Fates(seed=run.seed))
        kill_everywhere(trial, count)
        trial.judge(run.about(RIGHT), fault="SIGKILL")
    claim_kills(run, trial)
    claim_tracking(run, trial)
    claim_replies(run, trial)
    with run.step(f"{MEMORY}: the same kills of the worker"):
        forget(run, count)
    with run.step(f"{EARLY}: killed in between, and the operator decides otherwise"):
        send_early(run, count)
    with run.step(f"{KEYLESS}: the same kills of the host"):
        do_again(run, count)


def kill_everywhere(trial: stage.Trial, count: int) -> None:
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
    trial.close(host, worker, other)


def claim_kills(run: Run, trial: stage.Trial) -> None:
    right, standing, history = run.about(RIGHT), trial.standing, trial.history
    for window in WINDOWS:
        require(history, f"SIGKILL {window}")
    right.claim(
        "a worker or a host killed in any window: every order ends complete, or undone wherever it was begun",
        not standing.violations and min(len(standing.complete), len(standing.compensated)) > 0,
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
    for killed, seconds in stage.recoveries(history).items():
        right.figure("time to the next message", seconds * 1000, "ms", x=killed, x_label="killed")
    trial.note_orders(right, WINDOWS)


def claim_tracking(run: Run, trial: stage.Trial) -> None:
    right, sagas, agreeing = run.about(RIGHT), len(trial.statuses()), trial.agreeing()
    right.claim(
        "one table says how every order ended, and all four services agree with it",
        len(agreeing) == sagas == len(trial.sagas),
        topics=[f"{BASED}/centralized-state-tracking"],
        fact=f"{len(agreeing)} of {sagas} sagas",
    )
    wrong = trial.out_of_order()
    right.claim(
        "whatever was killed, steps were asked for in the order of the definition and undone in reverse",
        not wrong,
        topics=[f"{BASED}/explicit-workflow-definition"],
        fact=f"{sagas} sagas, {len(wrong)} in another order",
    )


def claim_replies(run: Run, trial: stage.Trial) -> None:
    right, history = run.about(RIGHT), trial.history
    commands = (op for op in history.delivered if not op.process.startswith("worker"))
    lost, asked = trial.lost_answers(), Counter(op.value.partition("#")[0] for op in commands)
    again = [request for request in lost if asked[request] > 1]
    right.claim(
        "an answer is lost: the request comes again under the same key, and the answer from the inbox",
        len(again) == len(lost) > 0 and not duplicate_effect(history),
        topics=[f"{MADE}/command-reply-pattern"],
        fact=f"{len(lost)} answers lost, {len(again)} requests came again",
    )
    readers = Counter(op.process for op in history.delivered if op.process.startswith("worker"))
    twice = trial.taken_twice()
    right.claim(
        "two workers share the sagas, and every answer moves its saga on once",
        len(readers) == 2 and not twice,
        topics=[f"{MADE}/saga-orchestrator-service"],
        fact=f"{' and '.join(str(count) for count in readers.values())} replies read, {len(twice)} turns taken twice",
    )


def forget(run: Run, count: int) -> None:
    wrong, trial = run.about(MEMORY, wrong_way=True, topics=[CUSTOM]), stage.set_up(run, "memory")
    host = trial.host()
    for window in WorkerWindow:
        trial.memory_worker(MemoryStore, count, window).wait()
    trial.close(host)
    trial.judge(wrong, fault="SIGKILL")
    left = trial.note_orders(wrong, WorkerWindow)
    wrong.claim(
        "state in memory: a kill in any window leaves orders half done, and nobody knows of them any more",
        min(trial.broken()) > 0,
        fact=f"{left} of {len(trial.sagas)} orders inconsistent for good",
    )


def send_early(run: Run, count: int) -> None:
    """The worker is killed between sending and commit, or just before the commit; the operator has all sagas undone."""
    wrong = run.about(EARLY, wrong_way=True, topics=[f"{BASED}/command-based-coordination"])
    early = send_around_the_commit(run, "early", SendFirst, count)
    after = send_around_the_commit(run, "after", Orchestrator, count)
    early.judge(wrong, fault=f"SIGKILL {WorkerWindow.SAVED}")
    after.judge(run.about(RIGHT), fault=f"SIGKILL {WorkerWindow.SAVED}")
    left, none = early.note_orders(wrong, [WorkerWindow.SAVED]), sum(after.broken())
    wrong.claim(
        "sent before the commit: a service does what no saga knows of, and it is not undone with the rest",
        left > 0 == none,
        fact=f"{left} of {count} orders inconsistent; sent after the commit: {none}",
    )


def send_around_the_commit(run: Run, name: str, kind: type[Orchestrator], count: int) -> stage.Trial:
    trial = stage.set_up(run, name)
    host = trial.host()
    trial.begin(count)
    trial.await_waiting(trial.office.topics.replies)
    trial.worker(0, WorkerWindow.SAVED, nth=1, kind=kind).wait()
    trial.undo_all()
    worker = trial.worker(0, kind=kind)
    trial.await_end()
    trial.close(host, worker)
    return trial


def do_again(run: Run, count: int) -> None:
    wrong, trial = run.about(KEYLESS, wrong_way=True), stage.set_up(run, "keyless")
    trial.hosted = EachTimeShop(trial.shop.conninfos)
    worker, others = trial.worker(0), trial.host(services=("orders", "stock", "shipping"))
    for window in HostWindow:
        trial.begin(count)
        trial.await_waiting(trial.office.topics.commands["payments"])
        trial.host(window, ("payments",), nth=1).wait()
        with trial.host(services=("payments",)):  # stopped in order, it leaves nothing to be read again
            trial.await_end()
    trial.close(others, worker)
    history = trial.judge(wrong, fault="SIGKILL")
    left = trial.note_orders(wrong, HostWindow)
    wrong.claim(
        "no idempotency key: what was done and not yet answered is done again after the kill",
        [broken > 0 for broken in trial.broken()] == [window in DOUBLING for window in HostWindow],
        topics=[f"{MADE}/command-reply-pattern"],
        fact=f"{len(duplicate_effect(history))} effects doubled, {left} customers charged twice",
    )


if __name__ == "__main__":
    experiment.main()
