"""A projection: events in, a read model out, and the place reached noted in the transaction of the read model.

A batch of events is one transaction: read model and checkpoint move together or not at all, so that a crash anywhere
leaves a projection that has taken every event once. This holds because both are in one database. Where the read model
lives elsewhere, the checkpoint must live there with it, or handling an event twice must do no harm.

Each stream's events come in their order. A projection that joins streams must not rely on more: an effect may come
before its cause in another stream, where an append was part of a longer transaction (see `EventStore.read_all`). It is
written so that either order ends in the same model, or is a reader of its own, by windows (windowed.py).
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple

import psycopg
from psycopg.errors import ProgramLimitExceeded, StatementTooComplex

from shared.postgres import Connection
from shared.wait import until
from sourcing import checkpoint, parking
from sourcing.errors import MISFITS, SourcingError, UnknownEventType, UnreadableEvent, printable
from sourcing.event import TOMBSTONE, Data, Position, Recorded
from sourcing.postgres import PostgresStore
from sourcing.repository import Reader, as_stored
from sourcing.windows import Hook, ProjectionWindow, nowhere

BATCH = 2000  # events of one transaction
PAUSE = 0.01  # seconds between two looks of a projector that has caught up
# What an event can be guilty of. All else (the connection, a table that is not there) ends the projector.
FAULTS = (
    *(UnreadableEvent, *MISFITS),
    *(psycopg.DataError, psycopg.IntegrityError),
    *(ProgramLimitExceeded, StatementTooComplex),  # a key too long for its index, and the like
)


class Policy(StrEnum):
    """What becomes of an event that cannot be handled."""

    PARK = "park"  # keep it aside with its reason, and what follows in its stream; all other streams go on
    STOP = "stop"  # take what comes before it, then raise ProjectionStopped


class ProjectionStopped(SourcingError):
    """An event cannot be handled, and the policy is to stop before it. `reason` says why."""

    def __init__(self, projection: str, event: Recorded, reason: str) -> None:
        where = f"event {event.version} of stream {event.stream!r}, type {event.type!r}"
        super().__init__(f"projection {projection!r} stopped before {where}: {reason}")
        self.projection, self.event, self.reason = projection, event, reason


class Change(NamedTuple):
    """What a stored event says in the current schema: an upcaster may make none or several of one event."""

    event: Recorded
    type: str
    data: Data


class Projection(ABC):
    """What becomes of events. It has tables of its own, and never looks into those of another projection."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # of tables and code; to change them, raise it and rebuild
    tables: ClassVar[tuple[str, ...]]
    schema: ClassVar[str]  # SQL that creates the tables
    category: ClassVar[str]  # of the streams that it reads
    types: ClassVar[frozenset[str]]  # of the events that it knows, also those that change nothing here

    @abstractmethod
    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        """Take all the changes in, in their order, in the caller's transaction and in a handful of statements.

        Of two streams either may come first, also where one's event follows from the other's.
        It depends on the changes and its own tables and on nothing else, or a rebuild gives another result. It raises
        one of FAULTS for a change that cannot be taken in. A stream that was deleted ends in a TOMBSTONE.
        """


class Projector:
    """Keeps one projection up to date, on a connection of its own. Several may run: they wait for each other."""

    def __init__(
        self,
        connection: Connection,
        projection: Projection,
        *,
        read: Reader = as_stored,
        policy: Policy = Policy.PARK,
        batch: int = BATCH,
        at: Hook = nowhere,
    ) -> None:
        """Raises ProjectionReplaced when the tables are those of another version, CheckpointRefused when they were made
        of events that are not there any more, and NotAdopted."""
        self.connection = connection
        self.projection = projection
        self.read = read
        self.policy = policy
        self.batch = batch
        self.at = at
        self.store = PostgresStore(connection)
        self.events: Sequence[Recorded] = ()  # the batch in hand
        self.place = checkpoint.begin(connection, projection.name, projection.version)
        self._size = batch

    def run(self, stop: threading.Event) -> None:
        """Follow the events until told to stop."""
        while not stop.is_set():
            if not self.step():
                stop.wait(PAUSE)

    def catch_up(self, progress: Callable[[int], object] = lambda events: None) -> int:
        """Take in all that is committed by now; returns how many events, and tells `progress` after each batch.

        What older transactions still hide is waited for: raises DeadlineExceeded when they stay open.
        """
        end, total = checkpoint.end(self.connection), 0
        while self.place < end:
            if passed := self.step():
                total += passed
                progress(total)
            elif self.place < end:
                until("older transactions to end", lambda: self._page(self.place, 1))
        return total

    def step(self) -> int:
        """Take in the next batch; returns how many events, 0 when there is none yet. Raises ProjectionStopped."""
        while events := self._page(self.place, self._size):
            self.events = events
            self.at(ProjectionWindow.AFTER_READ)
            try:
                passed = self._take(events)
            except FAULTS as error:
                if len(events) > 1:  # one of them: halve the batch until it is alone, then grow again
                    self._size = len(events) // 2
                    continue
                passed = self._take(events, {events[0]: _reason(error)})
            if passed:
                self._size = min(self._size * 2, self.batch)
                self.at(ProjectionWindow.AFTER_COMMIT)
                return passed
        return 0

    def retry(self, streams: Iterable[str] | None = None) -> int:
        """Handle what is parked, of these streams or of all; returns how many events are no longer parked.

        In each stream it goes on to the first event that still cannot be handled, which gets its new reason.
        """
        held = parking.held(self.connection, self.projection.name)
        return sum(self._retry(stream) for stream in (held if streams is None else streams))

    def _page(self, after: Position, limit: int) -> Sequence[Recorded]:
        return self.store.read_all(after, limit)

    def _take(self, events: Sequence[Recorded], guilty: dict[Recorded, str] | None = None) -> int:
        """One transaction; returns how many events are passed, 0 when somebody else has moved the checkpoint."""
        with self.connection.transaction():
            place = checkpoint.lock(self.connection, self.projection.name, self.projection.version)
            if place == self.place:
                changes, refused = ([], guilty) if guilty else self._sort(events)
                if refused and self.policy is Policy.STOP:
                    events, changes = self._before(next(iter(refused.items())), events, changes)
                if changes:
                    self.projection.handle(self.connection, changes)
                if self.policy is Policy.PARK:
                    parking.park(self.connection, self.projection.name, refused)
                self.at(ProjectionWindow.BETWEEN)
                place = events[-1].place
                checkpoint.advance(self.connection, self.projection.name, events[-1])
                self.at(ProjectionWindow.AFTER_BOTH)
            else:
                events = ()
        self.place = place
        return len(events)

    def _sort(self, events: Iterable[Recorded]) -> tuple[list[Change], dict[Recorded, str]]:
        """What the events of the projection's category say, and the reasons of those that cannot be read."""
        held = parking.held(self.connection, self.projection.name)
        changes: list[Change] = []
        refused: dict[Recorded, str] = {}
        prefix = f"{self.projection.category}-"
        for event in events:
            if not event.stream.startswith(prefix):
                continue
            if event.stream in held:
                refused[event] = f"behind version {held[event.stream]}, which is parked"
                continue
            try:
                changes += self._changes(event)
            except FAULTS as error:
                refused[event] = _reason(error)
                held[event.stream] = event.version
        return changes, refused

    def _changes(self, event: Recorded) -> list[Change]:
        if event.type == TOMBSTONE:
            return [Change(event, TOMBSTONE, {})]
        changes = [Change(event, type_, data) for type_, data in self.read(event)]
        for change in changes:
            if change.type not in self.projection.types:
                raise UnknownEventType(*event[:3], f"the projection {self.projection.name!r} does not know it")
        return changes

    def _before(
        self, guilty: tuple[Recorded, str], events: Sequence[Recorded], changes: list[Change]
    ) -> tuple[Sequence[Recorded], list[Change]]:
        """What comes before the guilty event. Raises ProjectionStopped when that is nothing."""
        event, reason = guilty
        if events[0] == event:
            raise ProjectionStopped(self.projection.name, event, reason)
        place = event.place
        return [e for e in events if e.place < place], [change for change in changes if change.event.place < place]

    def _retry(self, stream: str) -> int:
        """One stream, one transaction, an event at a time."""
        name, handled = self.projection.name, 0
        with self.connection.transaction():
            checkpoint.lock(self.connection, name, self.projection.version)
            for event in parking.waiting(self.connection, name, stream):
                try:
                    with self.connection.transaction():
                        if changes := self._changes(event):
                            self.projection.handle(self.connection, changes)
                        parking.release(self.connection, name, event)
                except FAULTS as error:
                    parking.park(self.connection, name, {event: _reason(error)})
                    break
                handled += 1
        return handled


def install(connection: Connection, *projections: Projection) -> None:
    """Create the tables of the projections, and what all of them need, in the first schema of the search path."""
    checkpoint.create(connection)
    for projection in projections:
        connection.execute(projection.schema)


def _reason(error: BaseException) -> str:
    """As an operator wants to read it: a KeyError alone would only say what is missing."""
    text = printable(str(error).strip().partition("\n")[0])
    return text if isinstance(error, UnreadableEvent) else f"{type(error).__name__}: {text}"
