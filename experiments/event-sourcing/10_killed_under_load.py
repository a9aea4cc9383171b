"""Tellers, projector and Postgres are killed, the network is cut: is every acknowledged append there, and only once?

Three variants get the same load and the same faults: repeat the same append, append a new event after an error, and
repeat the same append with `synchronous_commit = off`. The first two differ in what is tried again: `repeat_the_same`
leaves it to `Repository.execute` with `reopen`, `append_anew` makes a new event each time. The experiment starts its
own Postgres. At the end that server is gone, and a dump of its events is restored into another.
"""

from sourcing.stage import survivors
from sourcing.stage.restore import Restored, move
from sourcing.stage.survivors import AppendWindow, Deployment, Left, Reading, Retry, repeat_the_same
from sourcing.windows import ProjectionWindow
from sourcing.wrong.anew import append_anew

from shared import checkers, faults
from shared.experiment import Experiment, Run
from shared.servers.handle import Handle

experiment = Experiment(
    title="Killed under load",
    topics=(
        "I.2/event-store-requirements/append-only-writes",
        "I.2/event-store-requirements/ordering-guarantees",
        "I.2/event-sourcing-fundamentals/append-only-event-log",
    ),
)
ORDER = "I.2/event-store-requirements/ordering-guarantees"
SAME, ANEW, ASYNC = "the same append again", "a new append", "the same again, synchronous_commit off"


@experiment.run
def main(run: Run) -> None:
    between, kills = run.pick((20, 2), (200, 3), (200, 5))
    run.parameters.update({"writers": survivors.WRITERS, "events between faults": between})
    run.parameters.update({"kills of the server": kills, "network delay each way (ms)": survivors.DELAY * 1000})
    with run.step("start a Postgres of our own"):
        server = run.own("postgres")
    same = suffer(run, server, SAME, repeat_the_same, between, kills)
    anew = suffer(run, server, ANEW, append_anew, between, kills)
    asynchronous = suffer(run, server, ASYNC, repeat_the_same, between, kills, synchronous=False)
    for variant, left in {SAME: same, ANEW: anew, ASYNC: asynchronous}.items():
        note_figures(run, variant, left)
    claim_acknowledged(run, same, asynchronous)
    claim_once(run, same, anew)
    claim_order(run, same)
    claim_log(run, same)
    claim_model(run, same)
    with run.step("the cluster is gone: its dump is restored into a fresh one, by pg_dump and psql"):
        moved = move(server.endpoint, run.own("postgres").endpoint, f"{run.name}_moved", run.pick(20, 200, 2_000))
    claim_moved(run, moved)


def suffer(
    run: Run, server: Handle, variant: str, way: Retry, between: int, kills: int, *, synchronous: bool = True
) -> Left:
    """The load and its faults, then the final read."""
    slug = f"{len(run.histories)}-{variant.split(',')[0].replace(' ', '-')}"
    with (
        survivors.deployed(run, server, slug, way, synchronous=synchronous) as deployed,
        run.step(f"{variant}: teller and projector killed, network cut and Postgres killed {kills}x"),
    ):
        before, restarts = load_and_faults(deployed, between, kills)
    after = survivors.settle(deployed.direct, deployed.recorder)
    history = run.about(variant, wrong_way=variant != SAME).judge(slug, fault="SIGKILL, restart")
    for fault in ("cut", f"SIGKILL {AppendWindow.AFTER}", f"SIGKILL {ProjectionWindow.BETWEEN}"):
        faults.require(history, fault)
    return Left(history, before, after, survivors.read_model(deployed.direct), restarts)


def load_and_faults(deployed: Deployment, between: int, kills: int) -> tuple[list[Reading], list[float]]:
    """Returns the log as it was before each fault, and the seconds that each restart of the server took."""
    before: list[Reading] = []
    restarts: list[float] = []
    projector, tellers = survivors.start_load(deployed)
    for _ in range(kills):
        before.append(survivors.more_of_log(deployed, between))
        survivors.cut(deployed)
        before.append(survivors.more_of_log(deployed, between))
        restarts.append(survivors.kill_server(deployed))
    while survivors.forgets_nothing_yet(deployed, len(restarts)):
        before.append(survivors.more_of_log(deployed, between))
        restarts.append(survivors.kill_server(deployed))
    survivors.more_of_log(deployed, between)
    survivors.end_load(deployed, projector, tellers)
    return before, restarts


def note_figures(run: Run, variant: str, left: Left) -> None:
    about, always = run.about(variant, wrong_way=variant != SAME), run.about(variant)
    about.figure("acknowledged appends gone", left.gone, "appends")
    about.figure("appends done twice", len(checkers.duplicate_effect(left.history)), "appends")
    about.figure("outcomes unknown", left.unknown, "appends")
    about.figure("events read before a fault and gone after", left.rewritten, "events")
    always.figure("Postgres from start to answer", left.restarts, "s")
    always.figure("Postgres killed until next append acknowledged", survivors.recovery(left.history), "s")


def claim_acknowledged(run: Run, same: Left, asynchronous: Left) -> None:
    run.about(SAME, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "whatever is killed or cut: every append that was acknowledged is in the log",
        same.gone == 0 and not checkers.lost(same.history) and same.unknown > 0,
        fact=f"{same.gone} of {len(same.history.committed):,} gone",
    )
    run.about(ASYNC, wrong_way=True, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "with synchronous_commit off Postgres acknowledges what it has not written, and forgets it when it is killed",
        asynchronous.gone > 0,
        fact=f"{asynchronous.gone} acknowledged appends gone after {len(asynchronous.restarts)} kills",
    )


def claim_once(run: Run, same: Left, anew: Left) -> None:
    doubled = checkers.duplicate_effect(same.history)
    run.about(SAME, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "an unknown outcome is settled by repeating the very same append: nothing counts twice, nothing is made up",
        not doubled + checkers.phantom(same.history) + checkers.aborted_read(same.history) and same.unknown > 0,
        fact=f"{same.unknown} outcomes were unknown, {len(doubled)} appends done twice",
    )
    doubled = checkers.duplicate_effect(anew.history)
    run.about(ANEW, wrong_way=True, topics=["I.2/event-store-requirements/append-only-writes"]).claim(
        "an error is taken for 'not done', and the retry makes a new event: money is paid in twice",
        len(doubled) > 0 == anew.gone,
        fact=f"{anew.unknown} outcomes were unknown, {len(doubled)} appends done twice",
    )
    # Where the fault hits is chance: `lab run event-sourcing/10 --repeat N` must have seen both.
    run.sometimes("an append without an answer had been written", len(doubled) > 0)
    run.sometimes("an append without an answer had not been written", anew.unknown > len(doubled))


def claim_order(run: Run, same: Left) -> None:
    reordered = checkers.reordered(same.history)
    run.about(SAME, topics=[ORDER]).claim(
        "read in global order, the versions of every stream are 1, 2, 3 and so on without a gap",
        same.gapless and not reordered,
        fact=f"{len(same.after):,} events of {len(same.folded)} streams, {len(reordered)} out of order",
    )


def claim_log(run: Run, same: Left) -> None:
    run.about(SAME, topics=["I.2/event-sourcing-fundamentals/append-only-event-log"]).claim(
        "the log as it was read before a fault is how the log begins after it, to the byte",
        same.rewritten == 0 and all(same.before) and len(same.before) == 2 * len(same.restarts) > 0,
        fact=f"{sum(map(len, same.before)):,} events of {len(same.before)} readings compared",
    )


def claim_model(run: Run, same: Left) -> None:
    run.about(SAME).claim(
        "the projector, killed between model and checkpoint, has counted every event once: both move by one commit",
        same.model == same.folded,
        fact=f"{len(same.folded)} balances equal the sum of their {len(same.after):,} events",
    )


def claim_moved(run: Run, moved: Restored) -> None:
    """What held, and what a query does that takes a transaction's id for good in every cluster."""
    run.claim(
        "restored into a fresh cluster, whose transaction ids are lower: until somebody adopts it, the store refuses "
        "and names the command (sliceworkz/eventstore#143)",
        moved.refused,
        topics=[ORDER],
        fact=moved.refusal,
    )
    new, rest = len(moved.after) - len(moved.before), len(moved.rest)
    run.claim(
        "adopted, it reads history first and as it was, streams go on, what is new comes after it, and a checkpoint "
        "kept elsewhere stays valid",
        moved.whole,
        topics=[ORDER],
        fact=f"{len(moved.before):,} events as before, {new} new ones behind, {rest:,} from the checkpoint",
    )
    run.about("ids of another cluster", wrong_way=True, topics=[ORDER]).claim(
        "read with the old cluster's transaction ids unadjusted: the events are in the table, and no reader gets one",
        not moved.bare and len(moved.before) > 0,
        fact=f"{len(moved.bare)} of {len(moved.before):,} events",
        source="sliceworkz/eventstore#143",
    )


if __name__ == "__main__":
    experiment.main()
