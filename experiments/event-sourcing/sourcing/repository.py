"""Aggregates out of a store and back: fold, decide, append under the version that was seen, retry on conflict."""

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from sourcing.aggregate import Aggregate, NotHandled
from sourcing.errors import (
    MISFITS,
    SchemaMismatch,
    UnknownEventType,
    UnreadableEvent,
    VersionGap,
    WrongExpectedVersion,
)
from sourcing.event import NO_METADATA, Data, Metadata, Recorded, data_of
from sourcing.store import EventStore

T = TypeVar("T")
A = TypeVar("A", bound=Aggregate)
# A stored event as the current events that it stands for: (type, data). An upcaster may make none or several of it.
Reader = Callable[[Recorded], Iterable[tuple[str, Data]]]
ATTEMPTS = 200  # on a hot stream and a busy machine nine of ten fail; 50 in a row were seen to
# Seconds up to which a writer waits at random, doubled by every conflict: writers must not meet again at once.
PAUSE, LONGEST_PAUSE = 0.001, 0.05
AGAIN, PATIENCE = 0.02, 300.0  # seconds between two attempts at a store that does not answer, and until they end


def as_stored(event: Recorded) -> Iterable[tuple[str, Data]]:
    """The reader of a program whose schemas have never changed."""
    return ((event.type, data_of(event)),)


class Snapshots(Protocol):
    """Where the repository may find a state to start from, and leave one."""

    def restore(self, aggregate: Aggregate) -> None:
        """Bring a fresh aggregate to its latest usable snapshot: state and version; leave it alone if there is none."""
        ...

    def offer(self, aggregate: Aggregate) -> None:
        """The aggregate was saved: take a snapshot if the policy says so."""
        ...


class Repository(Generic[A]):
    """Aggregates of one class in one store.

    A session that breaks while it waits for the answer to an append leaves three possibilities: it never arrived, it
    was refused, it is there. With `unanswered`, the errors of the store that mean this, and `reopen`, which makes the
    store anew, the very same append is repeated until it is answered, ids and expected version included: that is right
    in all three (see EventStore.append). A new append would do it twice.
    """

    def __init__(
        self,
        store: EventStore,
        make: Callable[[str], A],
        read: Reader = as_stored,
        snapshots: Snapshots | None = None,
        unanswered: tuple[type[Exception], ...] = (),
        reopen: Callable[[], EventStore] | None = None,
    ) -> None:
        self.store = store
        self.reopen = reopen
        self.make = make
        self.read = read
        self.snapshots = snapshots
        self.conflicts = 0  # met by `execute` so far
        self._retrying = Retrying(
            retry=retry_if_exception_type(WrongExpectedVersion),
            wait=wait_random_exponential(PAUSE, LONGEST_PAUSE),
            stop=stop_after_attempt(ATTEMPTS),
            after=self._count,
            reraise=True,
        )
        self._asking = Retrying(
            retry=retry_if_exception_type(unanswered),
            wait=wait_fixed(AGAIN),
            stop=stop_after_delay(PATIENCE),
            reraise=True,
        )

    def load(self, ident: str) -> A:
        """The aggregate as it is now; a new one where there is no stream. Raises UnreadableEvent naming the event."""
        return self._answered(lambda: self._load(ident))

    def _load(self, ident: str) -> A:
        aggregate = self.make(ident)
        if self.snapshots:
            self.snapshots.restore(aggregate)
        return self._fold(aggregate, self.store.read(aggregate.stream, after=aggregate.version))

    def load_at(self, ident: str, *, version: int | None = None, time: datetime | None = None) -> A:
        """The aggregate as it was at that version, or at that time, by replay from the first event.

        The order of the events is that of their versions. A clock may have been set back between two of them, so the
        replay stops at the first one that was recorded later: it never passes over one and applies what follows it.
        """
        aggregate = self.make(ident)
        events = self.store.read(aggregate.stream, limit=version)  # fewer are needed where the past was truncated

        def wanted(event: Recorded) -> bool:
            return (version is None or event.version <= version) and (time is None or event.recorded_at <= time)

        return self._fold(aggregate, takewhile(wanted, events))

    def save(self, aggregate: A) -> int:
        """Append what the aggregate recorded; returns its version. Raises WrongExpectedVersion when it is stale."""
        if aggregate.uncommitted:
            aggregate.version = self._answered(
                lambda: self.store.append(aggregate.stream, aggregate.uncommitted, aggregate.version)
            )
            aggregate.uncommitted = []
            if self.snapshots:
                self.snapshots.offer(aggregate)
        return aggregate.version

    def execute(self, ident: str, command: Callable[[A], None], because: Metadata = NO_METADATA) -> A:
        """Load, decide, save; on a conflict again, with what the other one wrote.

        Raises what the command raises, and WrongExpectedVersion after ATTEMPTS conflicts.
        """

        def once() -> A:
            aggregate = self.load(ident)
            aggregate.because = because
            command(aggregate)
            self.save(aggregate)
            return aggregate

        return self._retrying(once)

    def _answered(self, ask: Callable[[], T]) -> T:
        """What the store says, asked again on one that is opened anew for as long as it does not answer."""
        if self.reopen is None:
            return ask()
        for attempt in self._asking:
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self.store = self.reopen()
                return ask()
        raise AssertionError("the attempts end with a result or an error")

    def _count(self, state: RetryCallState) -> None:
        self.conflicts += 1

    def _fold(self, aggregate: A, events: Iterable[Recorded]) -> A:
        read, apply, version = self.read, aggregate.apply, aggregate.version
        for event in events:
            # A truncated past needs a snapshot to start from: the rest alone would fold to a state that never was.
            if event.version != version + 1:
                raise VersionGap(*event[:3], f"version {version + 1} should come before it, and is not there")
            version = event.version
            try:
                for type_, data in read(event):
                    try:
                        apply(type_, data)
                    except Exception as error:  # the program's own code: nothing but the event can be at fault
                        raise _unfit(aggregate, event, type_, error) from error
            except MISFITS as error:
                raise SchemaMismatch(*event[:3], f"it cannot be read: {error!r}") from error
        aggregate.version = version
        return aggregate


def _unfit(aggregate: Aggregate, event: Recorded, type_: str, error: Exception) -> UnreadableEvent:
    name = type(aggregate).__name__
    if isinstance(error, NotHandled):
        return UnknownEventType(*event[:3], f"{name} does not know {type_!r}")
    return SchemaMismatch(*event[:3], f"{name} cannot apply it as {type_!r}: {error!r}")
