"""Three read models of one log, kept by projectors that are killed: in the midst of a batch, or of a rebuild."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.checkers import duplicate_effect
from shared.experiment import Run
from shared.faults import Kill, hook
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect, in_schema
from sourcing.audit import everything
from sourcing.event import Recorded
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projection, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.read_models import PROJECTIONS
from sourcing.stage import lives, truth
from sourcing.windows import ProjectionWindow
from sourcing.wrong.projectors import CheckpointFirst, ModelFirst

# Where the model of the batch in hand is safe on the disk.
SAFE = {
    Projector: ProjectionWindow.AFTER_COMMIT,
    CheckpointFirst: ProjectionWindow.AFTER_BOTH,
    ModelFirst: ProjectionWindow.BETWEEN,
}


@dataclass(frozen=True)
class Log:
    """The events of some orders, and what every read model must hold by them."""

    conninfo: str
    batch: int  # a fifth of the events
    expected: dict[str, truth.Content]


def write_log(run: Run, orders: int) -> Log:
    create(conninfo := run.schema())
    with connect(conninfo) as connection:
        batch = lives.write(connection, run.seed, orders) // 5
        return Log(conninfo, batch, truth.fold(everything(PostgresStore(connection))))


@dataclass(frozen=True)
class Damage:
    """What one kill left of the three read models."""

    history: History
    wrong: dict[str, int]  # projection -> rows that are not what they should be
    dropped: dict[str, int]  # projection -> events without effect
    doubled: int  # effects had again, of all three

    def __str__(self) -> str:
        return "rows wrong: " + ", ".join(f"{name} {count}" for name, count in self.wrong.items())


@dataclass(frozen=True)
class ReadModels:
    """Tables for the three, in a schema in front of the one of the events on the search path."""

    run: Run
    log: Log
    name: str  # of their history
    conninfo: str
    connection: Connection

    def project(self, way: type[Projector], kill: Kill | None = None) -> None:
        """Each is kept by a process of its own, until that has taken in all events, or is killed."""
        arguments = self.log.batch, self.run.history_file(self.name), kill
        workers = [
            self.run.worker(name, project, self.conninfo, projection, way, *arguments)
            for name, projection in PROJECTIONS.items()
        ]
        for worker in workers:
            worker.wait()

    def wrong(self) -> dict[str, int]:
        """Read model -> rows that are not what a fold of all events says."""
        return {p: truth.wrong(self.log.expected[p], truth.read(self.connection, p)) for p in PROJECTIONS}

    def note_writes(self) -> None:
        """The events of the log, into the history."""
        recorder = self.run.recorder(self.name, "shop")
        for event in everything(PostgresStore(self.connection)):
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream, seq=event.version)


@contextmanager
def read_models(run: Run, log: Log, name: str) -> Iterator[ReadModels]:
    """Empty ones."""
    run.schema(suffix := f"_{len(run.histories)}")
    conninfo = in_schema(run.endpoints["postgres"].url, f"{run.name}{suffix}", run.name)
    with connect(conninfo) as connection:
        install(connection, *PROJECTIONS.values())
        yield ReadModels(run, log, name, conninfo, connection)


def damage(history: History, wrong: dict[str, int]) -> Damage:
    had = {p: {op.value for op in history.of(Action.EFFECT) if op.group == p} for p in PROJECTIONS}
    dropped = {p: len(history.committed - had[p]) for p in PROJECTIONS}
    return Damage(history, wrong, dropped, len(duplicate_effect(history)))


# The processes.


def project(
    conninfo: str, projection: Projection, way: type[Projector], batch: int, history: Path, kill: Kill | None = None
) -> None:
    """A process: take in all that there is, and end; each event a delivery when read and an effect when it is safe."""
    with Recorder(history, projection.name) as recorder, connect(conninfo) as connection:
        crash = hook(kill, recorder)

        def at(window: str) -> None:
            if window == ProjectionWindow.AFTER_READ:
                _record(recorder, Action.DELIVER, projector.events)
            if window == SAFE[way]:
                _record(recorder, Action.EFFECT, projector.events)
            crash(window)

        projector = way(connection, projection, batch=batch, at=at)
        projector.catch_up()


def rebuild_killed(conninfo: str, projection: Projection, batch: int, history: Path, kill: Kill) -> None:
    """A process: rebuild, and die in the midst of it."""
    with Recorder(history, "rebuild") as recorder:
        rebuild(conninfo, projection, batch=batch, at=hook(kill, recorder))


def _record(recorder: Recorder, action: Action, events: Sequence[Recorded]) -> None:
    name, at = recorder.process, now()
    recorder.add(
        *(Op(at, name, action, Outcome.OK, event.id, event.stream, event.version, group=name) for event in events)
    )
