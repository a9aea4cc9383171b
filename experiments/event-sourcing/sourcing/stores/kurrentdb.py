"""EventStoreDB, now KurrentDB, by its own client. Its versions count from 0, ours from 1.

Truncation is the stream's metadata there (`$tb`), and hides events from readers at once. Scavenging is not for clients:
an operator starts it over HTTP, it works through whole chunk files and says nothing of events.
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from sys import maxsize
from typing import ClassVar
from uuid import UUID

from kurrentdbclient import KurrentDBClient, RecordedEvent, StreamState
from kurrentdbclient import NewEvent as Proposed
from kurrentdbclient.exceptions import (
    CancelledByClientError,
    FailedPreconditionError,
    KurrentDBClientError,
    NotFoundError,
    StreamIsDeletedError,
    WrongCurrentVersionError,
)

from shared.servers.server import Endpoint
from sourcing.errors import StreamDeleted, WrongExpectedVersion
from sourcing.event import (
    START,
    TOMBSTONE,
    NewEvent,
    Position,
    Recorded,
    check_name,
    custom_of,
    encode_custom,
)
from sourcing.store import ANY, NO_STREAM, Capability, StreamMetadata
from sourcing.stores.adapting import (
    NEVER,
    Refusing,
    cancelling,
    last_version,
    nothing,
    number_of,
    prepared,
    settled,
    unwrap,
    wrap,
)

TRUNCATE_BEFORE = "$tb"
DELETED = "$streamDeleted"  # the type of its tombstones
SYSTEM = r"\$.+"  # streams that are left out

create = drop = nothing


def open_store(endpoint: Endpoint, space: str) -> "KurrentStore":
    url = endpoint.url if "://" in endpoint.url else f"kurrentdb://{endpoint.url}?tls=false"
    return KurrentStore(KurrentDBClient(url))


class KurrentStore(Refusing):
    """An EventStore on one KurrentDB server, which has one log."""

    name: ClassVar[str] = "EventStoreDB"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {
        Capability.TRUNCATE,
        Capability.TRANSACTION,
    }

    def __init__(self, client: KurrentDBClient) -> None:
        self.client = client

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        new = [
            Proposed(event.type, data, wrap(event, metadata), id=UUID(event.id))
            for event, (data, metadata) in zip(events, encoded, strict=True)
        ]
        # One event has a call of its own, which is the faster one for it.
        proposed = new[0] if len(new) == 1 else new
        try:
            self.client.append_to_stream(stream, events=proposed, current_version=_state(expected))
        except WrongCurrentVersionError:
            return settled(self, stream, events, expected, lambda: last_version(self, stream))
        except KurrentDBClientError as error:
            raise (StreamDeleted(stream) if _is_deleted(error) else error) from error
        return expected + len(events) if expected != ANY else self._found(stream, events[-1].id)

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        start, count = None if backwards else after, maxsize if limit is None else limit
        try:
            found = self.client.get_stream(stream, stream_position=start, backwards=backwards, limit=count)
        except (NotFoundError, StreamIsDeletedError):
            return iter(())
        return takewhile(lambda event: event.version > after, map(_recorded, found))

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        # From a position on means with the event at it, which is the one that was read last.
        start, seen = (None, 0) if after == START else (after[1], 1)
        with self.client.read_all(
            commit_position=start, filter_exclude=[SYSTEM], filter_by_stream_name=True, limit=limit + seen
        ) as found:
            events = (_recorded(event) for event in found)
            return list(islice((event for event in events if event.place > after), limit))

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        start = None if after == START else after[1]
        subscription = self.client.subscribe_to_all(
            commit_position=start, filter_exclude=[SYSTEM], filter_by_stream_name=True
        )
        with cancelling(stop, lambda: subscription.stop(cancel=True)):
            try:
                yield from map(_recorded, subscription)
            except CancelledByClientError:
                if not stop.is_set():
                    raise

    def metadata(self, stream: str) -> StreamMetadata:
        try:
            [newest] = self.client.get_stream(f"$${stream}", backwards=True, limit=1)
        except NotFoundError:
            return StreamMetadata()
        found = custom_of(stream, newest.data)
        before = number_of(str(found.pop(TRUNCATE_BEFORE, 0)), 0) + 1
        return StreamMetadata(before, found)

    def set_metadata(self, stream: str, metadata: StreamMetadata) -> None:
        check_name(stream)
        encode_custom(stream, metadata.custom)
        truncated = {TRUNCATE_BEFORE: metadata.truncate_before - 1} if metadata.truncate_before > 1 else {}
        self.client.set_stream_metadata(stream, metadata=metadata.custom | truncated)

    def delete(self, stream: str, expected: int = ANY) -> None:
        check_name(stream)
        try:
            self.client.tombstone_stream(stream, current_version=_state(expected))
        except (WrongCurrentVersionError, NotFoundError) as error:
            raise WrongExpectedVersion(stream, expected, last_version(self, stream)) from error
        except KurrentDBClientError as error:
            raise (StreamDeleted(stream) if _is_deleted(error) else error) from error

    def close(self) -> None:
        self.client.close()

    def _found(self, stream: str, ident: str) -> int:
        """The version that an event of ours got under ANY: the answer to an append does not say."""
        with self.client.read_stream(stream, backwards=True) as newest:
            return next(event.stream_position + 1 for event in newest if str(event.id) == ident)


def _state(expected: int) -> int | StreamState:
    named = {ANY: StreamState.ANY, NO_STREAM: StreamState.NO_STREAM}
    return named.get(expected, expected - 1)


def _is_deleted(error: KurrentDBClientError) -> bool:
    """An append of one event reports a tombstone as a precondition that failed, and only its text says which."""
    return isinstance(error, StreamIsDeletedError) or (
        isinstance(error, FailedPreconditionError) and "is deleted" in str(error)
    )


def _recorded(event: RecordedEvent) -> Recorded:
    stream, version, (schema, metadata) = event.stream_name, event.stream_position + 1, unwrap(event.metadata)
    type_ = TOMBSTONE if event.type == DELETED else event.type
    place, at = (0, event.commit_position), event.recorded_at or NEVER
    return Recorded(stream, version, type_, schema, event.data, metadata, str(event.id), *place, at)
