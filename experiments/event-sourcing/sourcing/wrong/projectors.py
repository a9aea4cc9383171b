"""WRONG on purpose, or slow: projectors as they are often written, to be compared with `projection.Projector`."""

from collections.abc import Callable, Sequence

from sourcing import checkpoint
from sourcing.event import Position, Recorded
from sourcing.postgres import COLUMNS
from sourcing.projection import Projector
from sourcing.windows import ProjectionWindow


class CheckpointFirst(Projector):
    """WRONG: the checkpoint in a transaction before that of the model. Killed in between, a batch is dropped."""

    def _take(self, events: Sequence[Recorded], guilty: dict[Recorded, str] | None = None) -> int:
        self._note(events)
        self.at(ProjectionWindow.BETWEEN)
        self._handle(events)
        self.at(ProjectionWindow.AFTER_BOTH)
        return len(events)

    def _handle(self, events: Sequence[Recorded]) -> None:
        changes, _ = self._sort(events)
        if changes:
            with self.connection.transaction():
                self.projection.handle(self.connection, changes)

    def _note(self, events: Sequence[Recorded]) -> None:
        self.place = events[-1].place
        checkpoint.advance(self.connection, self.projection.name, events[-1])


class ModelFirst(CheckpointFirst):
    """WRONG: the checkpoint in a transaction after that of the model. Killed in between, a batch counts twice."""

    def _take(self, events: Sequence[Recorded], guilty: dict[Recorded, str] | None = None) -> int:
        self._handle(events)
        self.at(ProjectionWindow.BETWEEN)
        self._note(events)
        self.at(ProjectionWindow.AFTER_BOTH)
        return len(events)


class ByPosition(Projector):
    """WRONG: it reads on by `position > last`, and passes over events whose transactions commit late."""

    def catch_up(self, progress: Callable[[int], object] = lambda events: None) -> int:
        return sum(iter(self.step, 0))

    def _page(self, after: Position, limit: int) -> Sequence[Recorded]:
        page = f"select {COLUMNS} from events where position > %s order by position limit %s"  # noqa: S608
        rows = self.connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
        return rows.execute(page, [after[1], limit], prepare=True).fetchall()


class PerEvent(Projector):
    """Right and slow: a page is read at once, but every event has a transaction of its own."""

    def _take(self, events: Sequence[Recorded], guilty: dict[Recorded, str] | None = None) -> int:
        return sum(super(PerEvent, self)._take([event], guilty) for event in events)
