"""What an event store is. Every store of this lab is one; `tests/test_contract.py` asks the same of each."""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from sourcing.errors import EventIdNotAllowed
from sourcing.event import START, Data, NewEvent, Position, Recorded

# Expected versions. Any other number is exact: the version of the last event that the writer has seen.
ANY = -1  # append whatever is there
NO_STREAM = 0  # append only if nothing is there


class Capability(StrEnum):
    """What not every store can do. The experiment 04 shows who can as a table."""

    EXPECTED_VERSION = "expected version"  # refuses an append on a stream that has moved
    BACKWARDS = "read backwards"
    READ_ALL = "global order"  # reads all streams in one order, without missing an event
    SUBSCRIBE = "catch-up subscription"
    METADATA = "stream metadata"
    TRUNCATE = "truncate and scavenge"
    DELETE = "delete a stream"
    TRANSACTION = "joins a SQL transaction"  # read models and events can be written by one commit


_canonical = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def event_id(stream: str, event: NewEvent) -> str:
    """The event's id in the one spelling that stores give back (RFC 9562): an append is known again by it.

    Upper case, braces and missing hyphens say the same. Raises EventIdNotAllowed for what is no UUID.
    """
    if isinstance(event.id, str) and _canonical(event.id):
        return event.id
    try:
        return str(UUID(event.id))
    except (AttributeError, TypeError, ValueError) as error:
        raise EventIdNotAllowed(stream, event.type, event.id) from error


@dataclass(frozen=True)
class StreamMetadata:
    """What is known of a stream beside its events. Events below `truncate_before` are not read any more."""

    truncate_before: int = 1
    custom: Data = field(default_factory=dict)


class EventStore(Protocol):
    """Streams of events, appended under an expected version, read one by one or all in one order."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        """Append all of the events or none; returns the stream's new version, durable when this returns.

        Raises WrongExpectedVersion, StreamDeleted, StreamNameNotAllowed, EventIdNotAllowed, EventTooLarge, and
        ValueError for no events.
        An append whose answer was lost may be repeated with the same events and the same exact expected version: where
        they are in place already, their version is returned.
        """
        ...

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        """Events with versions above `after`, oldest first, or newest first. None of an unknown or deleted stream."""
        ...

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        """The next events of all streams. Pass the last one's position to go on; empty when there is nothing yet.

        Promised: every event once and none late, each stream in the order of its versions, and one order for all who
        read this store. Not promised: cause before effect across streams, where an append is part of a longer
        transaction (Capability.TRANSACTION): its event may be read before one of another stream that it follows from.
        An append that is a transaction by itself comes after all that its writer had read. Who needs the cause first in
        any case reads by windows: windowed.py.
        """
        ...

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        """Catch up from the position, then every event as it comes, until `stop` is set. Tombstones included."""
        ...

    def metadata(self, stream: str) -> StreamMetadata: ...

    def set_metadata(self, stream: str, metadata: StreamMetadata) -> None: ...

    def delete(self, stream: str, expected: int = ANY) -> None:
        """End the stream with a tombstone: it reads as empty, and its name cannot be appended to again."""
        ...

    def scavenge(self) -> int:
        """Remove for good what deletion and truncation hide; returns how many events went."""
        ...

    def close(self) -> None: ...
