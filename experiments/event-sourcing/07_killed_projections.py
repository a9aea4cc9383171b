"""Three read models follow one stream of events, and their projectors are killed: does each hold every event once?

The same three are kept by three projectors, which differ in where they note how far they are: before the read model,
after it, or in its transaction: `_take` of CheckpointFirst, ModelFirst and Projector. Every read model is compared, row
by row, with a fold of all events that knows nothing of projections.
"""

from dataclasses import dataclass

from sourcing.audit import everything
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projector, install
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import filling, folded, projecting
from sourcing.stage.projecting import NAMES
from sourcing.windows import ProjectionWindow
from sourcing.wrong.projectors import CheckpointFirst, ModelFirst

from shared.checkers import duplicate_effect
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect, in_schema

CONSISTENCY = "I.2/projections/projection-consistency"
READ_MODELS, SEVERAL = "I.2/projections/read-models-from-events", "I.2/projections/multiple-projections"
experiment = Experiment(
    title="Projections: killed in every window",
    servers=("postgres",),
    topics=(CONSISTENCY, READ_MODELS, SEVERAL),
)


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
    for way in (CheckpointFirst, ModelFirst, Projector):
        with run.step(f"{NAMES[way]}: three projections, kill -9 in every window"):
            for window in ProjectionWindow:
                cases[way, window] = kill_once(run, conninfo, way, window, batch, expected)
    claim_dropped(run, cases[CheckpointFirst, ProjectionWindow.BETWEEN], batch)
    claim_doubled(run, cases[ModelFirst, ProjectionWindow.BETWEEN], batch)
    claim_right(run, [case for (way, _), case in cases.items() if way is Projector])


@dataclass(frozen=True)
class Case:
    """What one kill left of the three read models."""

    history: History
    wrong: dict[str, int]  # projection -> rows that are not what they should be
    dropped: dict[str, int]  # projection -> events without effect
    doubled: int  # effects had again, of all three


def kill_once(
    run: Run,
    base: str,
    way: type[Projector],
    window: ProjectionWindow,
    batch: int,
    expected: dict[str, folded.Rows],
) -> Case:
    """Read models of their own on the common events; each projector dies at its second batch, and is started again."""
    about = run.about(NAMES[way], wrong_way=way is not Projector)
    name = f"{NAMES[way]}-{window}".replace(" ", "-")
    conninfo, file = tables(run, f"_{len(run.histories)}"), run.history_file(name)
    with connect(conninfo) as connection:
        install(connection, *PROJECTIONS.values())
        for kill in (Kill(window, nth=2), None):
            for worker in [run.worker(p, projecting.project, conninfo, p, way, batch, file, kill) for p in PROJECTIONS]:
                worker.wait()
        note_writes(run, connection, name)
        wrong = {p: folded.wrong(expected[p], folded.read(connection, p)) for p in PROJECTIONS}
    history = about.judge(name, fault=f"SIGKILL {window}")
    had = {p: {op.value for op in history.of(Action.EFFECT) if op.group == p} for p in PROJECTIONS}
    dropped = {p: len(history.committed - had[p]) for p in PROJECTIONS}
    case = Case(history, wrong, dropped, len(duplicate_effect(history)))
    figures = {"events dropped": sum(case.dropped.values()), "events counted twice": case.doubled}
    for what, value in {**figures, "rows wrong": sum(case.wrong.values())}.items():
        about.figure(what, value, what.split()[0], x=window, x_label="killed")
    return case


def tables(run: Run, suffix: str) -> str:
    """A schema for read models, in front of the one of the events on the search path."""
    run.schema(suffix)
    return in_schema(run.endpoints["postgres"].url, f"{run.name}{suffix}", run.name)


def note_writes(run: Run, connection: Connection, name: str) -> None:
    recorder = run.recorder(name, "shop")
    for event in everything(PostgresStore(connection)):
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream, seq=event.version)


def claim_dropped(run: Run, case: Case, batch: int) -> None:
    run.about(NAMES[CheckpointFirst], wrong_way=True, topics=[CONSISTENCY]).claim(
        "checkpoint first, model after: killed in between, each projection drops its batch for good, without an error",
        set(case.dropped.values()) == {batch} and all(case.wrong.values()) and case.doubled == 0,
        fact=f"{sum(case.dropped.values())} events dropped, rows wrong: {rows(case)}",
    )


def claim_doubled(run: Run, case: Case, batch: int) -> None:
    run.about(NAMES[ModelFirst], wrong_way=True, topics=[CONSISTENCY]).claim(
        "model first, checkpoint after: killed in between, each projection counts its batch twice",
        case.doubled == batch * len(PROJECTIONS) and all(case.wrong.values()) and not any(case.dropped.values()),
        fact=f"{case.doubled} events counted twice, rows wrong: {rows(case)}",
    )


def claim_right(run: Run, cases: list[Case]) -> None:
    right = run.about(NAMES[Projector], topics=[CONSISTENCY])
    losses = sum(sum(case.dropped.values()) + case.doubled for case in cases)
    kills = sum(len(case.history.faults) for case in cases)
    right.claim(
        "checkpoint in the transaction of the model: killed in any window, every event counts once",
        losses == 0 and kills == len(ProjectionWindow) * len(PROJECTIONS),
        fact=f"{losses} dropped or doubled at {kills} kills",
    )
    right.claim(
        "three projections read one stream, each at its own pace: all three are, row by row, the fold of all events",
        not any(sum(case.wrong.values()) for case in cases),
        topics=[READ_MODELS, SEVERAL],
        fact=f"{sum(sum(case.wrong.values()) for case in cases)} rows wrong after {kills} kills",
    )


def rows(case: Case) -> str:
    return ", ".join(f"{name} {count}" for name, count in case.wrong.items())


if __name__ == "__main__":
    experiment.main()
