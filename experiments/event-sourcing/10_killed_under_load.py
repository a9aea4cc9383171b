"""Tellers, projector, network and Postgres die under load: is every acknowledged append there, and none of them twice?

The same load and the same faults for three variants: repeat the very same append, append anew after an error, and
repeat the same with `synchronous_commit = off`. The first two differ in what is tried again: `Repository.execute` with
`reopen`, or a new append, as in wrong/anew.py. All of it on a Postgres of the experiment's own. Then that one is gone,
and a dump of its events is restored into another.
"""

from concurrent.futures import ThreadPoolExecutor

from psycopg.conninfo import conninfo_to_dict
from sourcing.event import Recorded, data_of
from sourcing.stage import supervised
from sourcing.stage.restoring import claim, move
from sourcing.stage.supervised import AppendWindow, Deployment, Left, append_anew, repeat_the_same
from sourcing.stage.writers import Bank, gate
from sourcing.windows import ProjectionWindow

from shared import faults
from shared.checkers import aborted_read, duplicate_effect, lost, phantom, reordered
from shared.experiment import Experiment, Run
from shared.faults import Faults, Kill
from shared.history import Action, Outcome
from shared.proxy import Proxy
from shared.servers.handle import Handle
from shared.wait import until
from shared.worker import Worker

experiment = Experiment(
    title="Killed under load",
    topics=(
        "I.2/event-store-requirements/append-only-writes",
        "I.2/event-store-requirements/ordering-guarantees",
        "I.2/event-sourcing-fundamentals/append-only-event-log",
    ),
)
WRITERS, ACCOUNTS = 8, 4
NO_END = 10**9  # the load lasts until the last fault is over
MOST = 20  # kills until a server that forgets has forgotten something: one that wrote just before forgets nothing
SAME, ANEW, ASYNC = "the same append again", "a new append", "the same again, synchronous_commit off"
WAYS = {SAME: repeat_the_same, ANEW: append_anew, ASYNC: repeat_the_same}


@experiment.run
def main(run: Run) -> None:
    between, kills = run.pick((20, 2), (200, 3), (200, 5))
    run.parameters.update({"writers": WRITERS, "events between faults": between, "kills of the server": kills})
    run.parameters["network delay each way (ms)"] = supervised.DELAY * 1000
    with run.step("start a Postgres of our own"):
        server = run.own("postgres")
    left = {variant: suffer(run, server, variant, between, kills) for variant in WAYS}
    for variant, found in left.items():
        note_figures(run, variant, found)
    claim_acknowledged(run, left[SAME], left[ASYNC])
    claim_once(run, left[SAME], left[ANEW])
    claim_order(run, left[SAME])
    claim_log(run, left[SAME])
    claim_model(run, left[SAME])
    with run.step("the cluster is gone: its dump is restored into a fresh one, by pg_dump and psql"):
        moved = move(server.endpoint, run.own("postgres").endpoint, f"{run.name}_moved", run.pick(20, 200, 2_000))
    claim(run, moved)


def suffer(run: Run, server: Handle, variant: str, between: int, kills: int) -> Left:
    """The load and its faults, then the final read."""
    slug = f"{len(run.histories)}-{variant.split(',')[0].replace(' ', '-')}"
    recorder = run.recorder(slug, "experiment")
    with Proxy("network", f"127.0.0.1:{conninfo_to_dict(server.endpoint.url)['port']}") as network:
        bank = Bank("", run.history_file(slug), run.seed, NO_END, ACCOUNTS)
        deployed = supervised.deploy(run, server, network, WAYS[variant], bank, variant != ASYNC)
        for event in supervised.read_log(deployed.direct):
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream, seq=event.version)
        with run.step(f"{variant}: teller and projector killed, network cut and Postgres killed {kills}x"):
            before, restarts = load_and_faults(run, deployed, Faults(recorder), between, kills)
    after = supervised.settle(deployed.direct, recorder)
    history = run.judge(slug, variant=variant, wrong_way=variant != SAME, fault="SIGKILL, restart")
    for fault in ("cut", f"SIGKILL {AppendWindow.AFTER}", f"SIGKILL {ProjectionWindow.BETWEEN}"):
        faults.require(history, fault)
    return Left(history, before, after, supervised.read_model(deployed.direct), restarts)


def load_and_faults(
    run: Run, deployed: Deployment, harm: Faults, between: int, kills: int
) -> tuple[list[list[Recorded]], list[float]]:
    """Returns the log as it was before each fault, and the seconds that each restart of the server took."""
    before: list[list[Recorded]] = []
    restarts: list[float] = []
    with gate(deployed.direct, WRITERS):
        projector = run.worker("projector", supervised.project, deployed.bank, Kill(ProjectionWindow.BETWEEN, nth=3))
        doomed = supervised.teller(run, deployed, 0, Kill(AppendWindow.AFTER, nth=3))
        tellers = [supervised.teller(run, deployed, number) for number in range(1, WRITERS)]
    tellers.append(supervised.again(doomed, lambda: supervised.teller(run, deployed, 0)))
    projector = supervised.again(projector, lambda: run.worker("projector", supervised.project, deployed.bank))
    plan = [supervised.cut, supervised.kill_server] * kills
    while plan or (
        deployed.forgets and len(restarts) < MOST and not supervised.gone(deployed.direct, deployed.bank.history)
    ):
        before.append(supervised.more_of_log(deployed, between))
        restarts += (plan.pop(0) if plan else supervised.kill_server)(deployed, harm)
    supervised.more_of_log(deployed, between)
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(Worker.stop, tellers))
    until("the projector to catch up", lambda: supervised.behind(deployed.direct) == 0)
    projector.stop()
    until("all sessions to end", lambda: supervised.sessions(deployed) == 0)
    return before, restarts


def note_figures(run: Run, variant: str, left: Left) -> None:
    wrong = variant != SAME
    counts = {
        "acknowledged appends gone": left.gone,
        "appends done twice": len(duplicate_effect(left.history)),
        "outcomes unknown": left.unknown,
    }
    for name, count in counts.items():
        run.figure(name, count, "appends", variant=variant, wrong_way=wrong)
    run.figure("events read before a fault and gone after", left.rewritten, "events", variant=variant, wrong_way=wrong)
    run.figure("Postgres from start to answer", left.restarts, "s", variant=variant)
    run.figure(
        "Postgres killed until next append acknowledged", supervised.recovery(left.history), "s", variant=variant
    )


def claim_acknowledged(run: Run, same: Left, asynchronous: Left) -> None:
    run.about(SAME, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "whatever is killed or cut: every append that was acknowledged is in the log",
        same.gone == 0 and not lost(same.history) and same.unknown > 0,
        fact=f"{same.gone} of {len(same.history.committed):,} gone",
    )
    run.about(ASYNC, wrong_way=True, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "with synchronous_commit off Postgres acknowledges what it has not written, and forgets it when it is killed",
        asynchronous.gone > 0,
        fact=f"{asynchronous.gone} acknowledged appends gone after {len(asynchronous.restarts)} kills",
    )


def claim_once(run: Run, same: Left, anew: Left) -> None:
    doubled = duplicate_effect(same.history)
    run.about(SAME, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "an unknown outcome is settled by repeating the very same append: nothing counts twice, nothing is made up",
        not doubled + phantom(same.history) + aborted_read(same.history) and same.unknown > 0,
        fact=f"{same.unknown} outcomes were unknown, {len(doubled)} appends done twice",
    )
    doubled = duplicate_effect(anew.history)
    run.about(ANEW, wrong_way=True, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "an error taken for 'not done', and the retry for a new event: money is paid in twice",
        len(doubled) > 0 == anew.gone,
        fact=f"{anew.unknown} outcomes were unknown, {len(doubled)} appends done twice",
    )


def claim_order(run: Run, same: Left) -> None:
    versions: dict[str, list[int]] = {}
    for event in same.after:
        versions.setdefault(event.stream, []).append(event.version)
    run.about(SAME, topics=["I.2/event-store-requirements/ordering-guarantees"]).claim(
        "read in global order, the versions of every stream are 1, 2, 3 and so on without a gap",
        all(found == list(range(1, len(found) + 1)) for found in versions.values()) and not reordered(same.history),
        fact=f"{len(same.after):,} events of {len(versions)} streams, {len(reordered(same.history))} out of order",
    )


def claim_log(run: Run, same: Left) -> None:
    run.about(SAME, topics=["I.2/event-sourcing-fundamentals/append-only-event-log"]).claim(
        "the log as it was read before a fault is how the log begins after it, to the byte",
        same.rewritten == 0 and all(same.before) and len(same.before) == 2 * len(same.restarts) > 0,
        fact=f"{sum(map(len, same.before)):,} events of {len(same.before)} readings compared",
    )


def claim_model(run: Run, same: Left) -> None:
    folded: dict[str, tuple[int, int]] = {}
    for event in same.after:
        cents, events = folded.get(event.stream, (0, 0))
        folded[event.stream] = cents + data_of(event).get("cents", 0), events + 1
    run.about(SAME).claim(
        "the projector, killed between model and checkpoint, has counted every event once: both move by one commit",
        same.model == folded,
        fact=f"{len(folded)} balances equal the sum of their {len(same.after):,} events",
    )


if __name__ == "__main__":
    experiment.main()
