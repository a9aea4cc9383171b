"""Three read models follow one stream of events, and are killed and rebuilt: does each hold every event once?

The same three are kept by three projectors, which differ in where they note how far they are: before the read model,
after it, or in its transaction. Every read model is compared, row by row, with a fold of all events that knows nothing
of projections. Then one of them is rebuilt before the eyes of a reader, while orders come in.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sourcing.audit import everything
from sourcing.postgres import PostgresStore, create
from sourcing.projection import install
from sourcing.rebuild import Rebuilt, rebuild
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import badevents, filling, folded, projecting
from sourcing.stage.projecting import AFTER, BEFORE, ONE, Kill
from sourcing.stage.watching import behind, changes, empty_and_fill, rate, write_and_look, written, wrong_rows
from sourcing.windows import ProjectionWindow

from shared.checkers import duplicate_effect
from shared.experiment import Experiment, Run, Scale
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect, in_schema
from shared.wait import until

experiment = Experiment(
    title="Projections: killed in every window, rebuilt while people read",
    servers=("postgres",),
    topics=(
        "I.2/projections/read-models-from-events",
        "I.2/projections/projection-rebuilding",
        "I.2/projections/multiple-projections",
        "I.2/projections/projection-consistency",
    ),
)
SUMMARY = PROJECTIONS["order_summary"]
IN_PLACE, BESIDE = "emptied and filled again", "built beside, switched"
RATE = 40.0  # orders per second that come in during the rebuilds, an event per transaction
FASTER = 10  # times that a batch must be faster than a transaction per event, whatever else the machine does


@experiment.run
def main(run: Run) -> None:
    orders = run.pick(smoke=40, demo=200, full=600)
    conninfo = run.schema()
    create(conninfo)
    with connect(conninfo) as connection:
        with run.step(f"{orders} orders"):
            batch = filling.write(connection, run.seed, orders) // 5
        run.parameters.update({"orders": orders, "batch": batch})
        expected = folded.fold(everything(PostgresStore(connection)))
    cases = {}
    for way in (BEFORE, AFTER, ONE):
        with run.step(f"{way}: three projections, kill -9 in every window"):
            for window in ProjectionWindow:
                cases[way, window] = kill_once(run, conninfo, way, window, batch, expected)
    claim_kills(run, cases, batch)
    create(log := run.schema("_log"))
    with connect(log) as connection:
        with run.step("rebuild in batches of several sizes"):
            measure_rates(run, log, connection)
        with run.step("rebuild while orders come in and a reader looks on"):
            rebuild_live(run, log, connection)
    with run.step("events that cannot be handled"):
        refuse(run)


@dataclass(frozen=True)
class Case:
    """What one kill left of the three read models."""

    history: History
    wrong: dict[str, int]  # projection -> rows that are not what they should be
    dropped: dict[str, int]  # projection -> events without effect
    doubled: int  # effects had again, of all three


def kill_once(
    run: Run, base: str, way: str, window: ProjectionWindow, batch: int, expected: dict[str, folded.Rows]
) -> Case:
    """Read models of their own on the common events; each projector dies at its second batch, and is started again."""
    name = f"{way}-{window}".replace(" ", "-")
    conninfo, file = tables(run, f"_{len(run.histories)}"), run.history_file(name)
    with connect(conninfo) as connection:
        install(connection, *PROJECTIONS.values())
        for kill in (Kill(window, nth=2), None):
            for worker in [run.worker(p, projecting.project, conninfo, p, way, batch, file, kill) for p in PROJECTIONS]:
                worker.wait()
        note_writes(run, connection, name)
        wrong = {p: folded.wrong(expected[p], folded.read(connection, p)) for p in PROJECTIONS}
    history = run.judge(name, variant=way, wrong_way=way != ONE, fault=f"SIGKILL {window}")
    had = {p: {op.value for op in history.of(Action.EFFECT) if op.group == p} for p in PROJECTIONS}
    case = Case(
        history,
        wrong,
        {p: len(history.committed - had[p]) for p in PROJECTIONS},
        len(duplicate_effect(history)),
    )
    figures = {"events dropped": sum(case.dropped.values()), "events counted twice": case.doubled}
    for what, value in {**figures, "rows wrong": sum(case.wrong.values())}.items():
        run.figure(what, value, what.split()[0], variant=way, wrong_way=way != ONE, x=window, x_label="killed")
    return case


def tables(run: Run, suffix: str) -> str:
    """A schema for read models, in front of the one of the events on the search path."""
    run.schema(suffix)
    return in_schema(run.endpoints["postgres"].url, f"{run.name}{suffix}", run.name)


def note_writes(run: Run, connection: Connection, name: str) -> None:
    recorder = run.recorder(name, "shop")
    for event in everything(PostgresStore(connection)):
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream, seq=event.version)


def claim_kills(run: Run, cases: dict[tuple[str, ProjectionWindow], Case], batch: int) -> None:
    first, after = cases[BEFORE, ProjectionWindow.BETWEEN], cases[AFTER, ProjectionWindow.BETWEEN]
    run.claim(
        "checkpoint first, model after: killed in between, each projection drops its batch for good, without an error",
        set(first.dropped.values()) == {batch} and all(first.wrong.values()) and first.doubled == 0,
        topics=["I.2/projections/projection-consistency"],
        fact=f"{sum(first.dropped.values())} events dropped, rows wrong: {rows(first)}",
        variant=BEFORE,
        wrong_way=True,
    )
    run.claim(
        "model first, checkpoint after: killed in between, each projection counts its batch twice",
        after.doubled == batch * len(PROJECTIONS) and all(after.wrong.values()) and not any(after.dropped.values()),
        topics=["I.2/projections/projection-consistency"],
        fact=f"{after.doubled} events counted twice, rows wrong: {rows(after)}",
        variant=AFTER,
        wrong_way=True,
    )
    right = [case for (way, _), case in cases.items() if way == ONE]
    losses = sum(sum(case.dropped.values()) + case.doubled for case in right)
    kills = sum(len(case.history.faults) for case in right)
    run.claim(
        "checkpoint in the transaction of the model: killed in any window, every event counts once",
        losses == 0 and kills == len(ProjectionWindow) * len(PROJECTIONS),
        topics=["I.2/projections/projection-consistency"],
        fact=f"{losses} dropped or doubled at {kills} kills",
        variant=ONE,
    )
    run.claim(
        "three projections read one stream, each at its own pace: all three are, row by row, the fold of all events",
        not any(sum(case.wrong.values()) for case in right),
        topics=["I.2/projections/read-models-from-events", "I.2/projections/multiple-projections"],
        fact=f"{sum(sum(case.wrong.values()) for case in right)} rows wrong after {kills} kills",
        variant=ONE,
    )


def rows(case: Case) -> str:
    return ", ".join(f"{name} {count}" for name, count in case.wrong.items())


def measure_rates(run: Run, log: str, connection: Connection) -> None:
    """Every read model rebuilt, and one of them in batches of several sizes."""
    events = filling.write(connection, run.seed, run.pick(smoke=800, demo=4_000, full=20_000), "old")
    connection.execute("analyze events")
    install(connection, *PROJECTIONS.values())
    rates = {size: rate(connection, SUMMARY, size, events) for size in (1, 10, 100, 1_000)}
    for size, found in rates.items():
        run.figure("events into a read model", found, "events/s", variant=SUMMARY.name, x=size, x_label="batch")
    for projection in PROJECTIONS.values():
        began = time.perf_counter()
        rebuild(log, projection)
        run.figure("rebuild", events / (time.perf_counter() - began), "events/s", variant=projection.name)
    if run.scale is not Scale.SMOKE:
        run.claim(
            f"a batch in one transaction and one upsert is more than {FASTER} times as fast as a transaction per event",
            rates[1_000] > FASTER * rates[1],
            topics=["I.2/projections/projection-rebuilding"],
            fact=f"{rates[1_000]:,.0f} against {rates[1]:,.0f} events/s: {rates[1_000] / rates[1]:.0f} times",
            variant=ONE,
        )


def rebuild_live(run: Run, log: str, connection: Connection) -> None:
    """The same read model rebuilt in both ways, with a projector, a writer and a reader at work."""
    projector = run.worker("projector", projecting.follow, log, SUMMARY.name)
    writer = run.worker("writer", projecting.write_paced, log, run.seed, RATE, "new")
    old = changes(connection)
    until("orders to come in, and into the read model", lambda: changes(connection) > old)
    with looking(run, log, "in-place") as in_place:
        before = changes(connection)
        projector.stop()
        empty_and_fill(connection, SUMMARY, run.folder / "in-place.json")
        projector.start()
        until("the read model to be whole again", lambda: changes(connection) >= before)
    with looking(run, log, "beside") as beside:
        before = written(connection)
        built = rebuild(
            log, SUMMARY, batch=500, progress=lambda _: until("more orders", lambda: more(connection, before))
        )
        meanwhile = more(connection, before)
    own = [write_and_look(connection, number) for number in range(run.pick(10, 40, 200))]
    writer.stop()
    until("the projector to have it all", lambda: behind(connection) == 0)
    claim_in_place(run, in_place)
    claim_beside(run, beside, built, meanwhile, wrong_rows(connection))
    claim_own(run, own)


def more(connection: Connection, before: int) -> int:
    return written(connection) - before


@contextmanager
def looking(run: Run, log: str, name: str) -> Iterator[dict[str, float]]:
    """A reader polls the read model during the block; what it saw is there after it."""
    seen: dict[str, float] = {}
    result = run.folder / f"{name}.json"
    reader = run.worker(f"reader-{name}", projecting.watch, log, result)
    until("the reader to look", result.exists)
    yield seen
    reader.stop()
    seen.update(json.loads(result.read_text()))
    variant = IN_PLACE if name == "in-place" else BESIDE
    run.figure("least that a reader saw", 100 * seen["lowest"], "%", variant=variant, wrong_way=variant == IN_PLACE)


def claim_in_place(run: Run, seen: dict[str, float]) -> None:
    run.claim(
        "emptied and filled again: people who read meanwhile see nothing at first, and then a part of it",
        seen["empty"] > 0 and seen["fell"] > seen["empty"],
        topics=["I.2/projections/projection-rebuilding"],
        fact=f"of {seen['polls']} polls {seen['empty']} saw nothing, {seen['fell']} less than one before",
        variant=IN_PLACE,
        wrong_way=True,
    )


def claim_beside(run: Run, seen: dict[str, float], built: Rebuilt, meanwhile: int, wrong: int) -> None:
    run.claim(
        "built beside and switched in one transaction: a reader sees the old table, then the new one, always whole",
        seen["fell"] == 0 and seen["tables"] == 2,
        topics=["I.2/projections/projection-rebuilding"],
        fact=f"{seen['fell']} of {seen['polls']} polls saw less than one before; {seen['tables']} tables seen",
        variant=BESIDE,
    )
    run.claim(
        "what is written during the rebuild and the switch is in the new table, once",
        wrong == 0 and meanwhile > 0,
        topics=["I.2/projections/projection-rebuilding", "I.2/projections/projection-consistency"],
        fact=f"{built.events:,} events read, {meanwhile} written meanwhile, {wrong} rows wrong",
        variant=BESIDE,
    )


def claim_own(run: Run, own: list[tuple[bool, bool, float]]) -> None:
    run.figure("wait for one's own write", [waited for _, _, waited in own], "ms", variant=ONE)
    missed, still = sum(not at_once for at_once, _, _ in own), sum(not after for _, after, _ in own)
    run.claim(
        "who reads right after his write does not find it; who waits for the checkpoint to pass it does",
        missed > 0 and still == 0,
        topics=["I.2/projections/projection-consistency"],
        fact=f"{missed} of {len(own)} writes not seen at once, {still} after the wait",
        variant=ONE,
    )


def refuse(run: Run) -> None:
    """Bad events among good ones: where one projector stops, another parks them and goes on."""
    create(conninfo := run.schema("_bad"))
    with connect(conninfo) as connection:
        filling.write(connection, run.seed, 10, "before")
        badevents.write(connection)
        filling.write(connection, run.seed, 10, "after")
        install(connection, SUMMARY)
        seen = badevents.project(conninfo, connection, SUMMARY)
    run.claim(
        "bad events are parked, each with its reason and with what follows in its stream; all other streams go on",
        all(badevents.REASONS[stream] in seen.parked.get(stream, "") for stream in badevents.BAD) and seen.wrong == 0,
        topics=["I.2/projections/read-models-from-events"],
        fact=f"{len(seen.parked)} parked with {seen.behind} behind them (msgspec#646); {seen.wrong} other rows wrong",
        variant=ONE,
    )
    run.claim(
        "under the policy to stop, all events before the first bad one are taken, and the error names it",
        "order-unknown-type" in seen.stopped and seen.missed == 0,
        topics=["I.2/projections/read-models-from-events"],
        fact=seen.stopped.partition(":")[0],
        variant=ONE,
    )
    run.claim(
        "once the program is mended, a retry handles what is parked, in order, and gives what a rebuild gives",
        seen.handled == len(seen.parked) + seen.behind and (seen.left, seen.differ) == (0, 0),
        topics=["I.2/projections/projection-rebuilding"],
        fact=f"{seen.handled} handled, {seen.left} left; {seen.differ} rows differ from a rebuild",
        variant=ONE,
    )


if __name__ == "__main__":
    experiment.main()
