"""What the adapters share: refusals, the check of what goes in, and what becomes of an append that was refused.

What other programs wrote into the same server is handed on as it is, whatever it is: a reader of all events must not
end at one of them. The event says that it cannot be read when it is asked for its data.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from shared import codec
from shared.errors import NotReadable
from shared.servers.server import Endpoint
from sourcing.errors import NotSupported, WrongExpectedVersion
from sourcing.event import START, NewEvent, Position, Recorded, check_name, encode
from sourcing.store import ANY, Capability, EventStore, StreamMetadata, event_id

PAUSE = 0.01  # seconds between two looks at whether a subscription is over


class Refusing:
    """An EventStore that can do nothing: an adapter overrides what its store can do, and declares it."""

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        raise NotSupported(self.name, Capability.READ_ALL)

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        raise NotSupported(self.name, Capability.SUBSCRIBE)

    def metadata(self, stream: str) -> StreamMetadata:
        raise NotSupported(self.name, Capability.METADATA)

    def set_metadata(self, stream: str, metadata: StreamMetadata) -> None:
        raise NotSupported(self.name, Capability.METADATA)

    def delete(self, stream: str, expected: int = ANY) -> None:
        raise NotSupported(self.name, Capability.DELETE)

    def scavenge(self) -> int:
        raise NotSupported(self.name, Capability.TRUNCATE)


class Envelope(msgspec.Struct):
    """What goes along with the data where a store has one field for it: the bytes of the metadata stay as they are."""

    schema_version: int
    metadata: msgspec.Raw


NEVER = datetime.fromtimestamp(0, UTC)
_open = codec.decoder(Envelope)
_is_number = re.compile("[0-9]{1,9}").fullmatch
_close = msgspec.json.Encoder().encode


def wrap(event: NewEvent, metadata: bytes) -> bytes:
    return _close(Envelope(event.schema_version, msgspec.Raw(metadata)))


def unwrap(envelope: bytes) -> tuple[int, bytes]:
    """The schema version and the metadata; 1 and the envelope where it is none."""
    try:
        opened = _open(envelope)
    except NotReadable:
        return 1, envelope
    return opened.schema_version, bytes(opened.metadata)


def text_of(data: bytes | None) -> str:
    """A key or a header, whatever it holds: a type or a stream with \ufffd in it is one that no program knows."""
    return (data or b"").decode(errors="replace")


def number_of(text: str, otherwise: int) -> int:
    return int(text) if _is_number(text) else otherwise


def time_of(milliseconds: float) -> datetime:
    """NEVER for what is no time."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return NEVER


def prepared(stream: str, events: Sequence[NewEvent]) -> tuple[list[NewEvent], list[tuple[bytes, bytes]]]:
    """The events, and (data, metadata) of each, once all of it is known to be good. Raises as `append` does.

    Ids come in one spelling, as they are compared later, also by stores that keep them as text.
    """
    check_name(stream)
    if not events:
        raise ValueError(f"nothing to append to {stream!r}")
    known = [replace(event, id=event_id(stream, event)) for event in events]
    return known, [encode(stream, event) for event in known]


def settled(store: EventStore, stream: str, events: Sequence[NewEvent], expected: int, last: Callable[[], int]) -> int:
    """An exact append was refused: the events' version if they are in place already, since the answer was lost.

    Raises WrongExpectedVersion when it was another writer, with what `last` says is the stream's version.
    """
    found = store.read(stream, after=expected, limit=len(events))
    if [event.id for event in found] == [event.id for event in events]:
        return expected + len(events)
    raise WrongExpectedVersion(stream, expected, last())


def last_version(store: EventStore, stream: str) -> int:
    """The version of the stream's last event; 0 for none. For stores that read backwards."""
    newest = next(store.read(stream, limit=1, backwards=True), None)
    return newest.version if newest else 0


@contextmanager
def cancelling(stop: threading.Event, cancel: Callable[[], object]) -> Iterator[None]:
    """While the block waits for a client that knows no time limit: cancel that when `stop` is set."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            if stop.is_set():
                cancel()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def nothing(endpoint: Endpoint, space: str) -> None:
    """`create` and `drop` of a server that has one log for all."""
