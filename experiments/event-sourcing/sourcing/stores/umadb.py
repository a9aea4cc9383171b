"""UmaDB: one log, whose appends are conditional on a query (a "dynamic consistency boundary").

A stream is a tag here, and the expected version becomes a condition: no event with the tag after the position that the
writer saw last. UmaDB knows positions and no versions, so a version travels with its event, and the adapter remembers
where the streams that it has seen ended: the condition keeps a memory that is out of date from doing harm.
"""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import ClassVar
from uuid import UUID

import umadb

from shared.servers.server import Endpoint
from sourcing.event import START, NewEvent, Position, Recorded
from sourcing.store import ANY, NO_STREAM, Capability
from sourcing.stores.adapting import NEVER, Refusing, cancelling, last_version, nothing, number_of, prepared, settled

REMEMBERED = 100_000  # streams

create = drop = nothing


def open_store(endpoint: Endpoint, space: str) -> "UmaDBStore":
    return UmaDBStore(endpoint.url)


class UmaDBStore(Refusing):
    """An EventStore on one UmaDB server, which has one log."""

    name: ClassVar[str] = "UmaDB"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.EXPECTED_VERSION, Capability.BACKWARDS, Capability.READ_ALL, Capability.SUBSCRIBE}
    )

    def __init__(self, url: str) -> None:
        self.client = umadb.Client(url)
        self._heads: dict[str, tuple[int, int]] = {}  # stream -> (version, position) of its last event, when last seen

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        while True:
            version, position = self._head(stream, expected)
            if expected not in (ANY, version):
                return settled(self, stream, events, expected, lambda: last_version(self, stream))
            new = [_event(stream, version + n, *both) for n, both in enumerate(zip(events, encoded, strict=True), 1)]
            try:
                last = self.client.append(new, umadb.AppendCondition(_tagged(stream), position or None))
            except umadb.IntegrityError:
                self._heads.pop(stream, None)
                if expected == ANY:
                    continue
                return settled(self, stream, events, expected, lambda: last_version(self, stream))
            self._remember(stream, version + len(events), last)
            return version + len(events)

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        # The log is asked by tag only: versions up to `after` are read, and left out here.
        first = limit if backwards or not after else None
        events = _recorded(self.client.read(_tagged(stream), backwards=backwards, limit=first))
        return islice((event for event in events if event.version > after), limit)

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        return list(_recorded(self.client.read(start=after[1] + 1, limit=limit)))

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        subscription = self.client.subscribe(after=after[1])
        with cancelling(stop, subscription.cancel):
            try:
                yield from _recorded(subscription)
            except umadb.CancelledByUserError:
                if not stop.is_set():
                    raise

    def close(self) -> None:
        self.client.close()

    def _head(self, stream: str, expected: int) -> tuple[int, int]:
        """Version and position of the stream's last event: as remembered, if that may be right, or as it is."""
        if expected == NO_STREAM:
            return 0, 0  # the condition asks the same, without a round trip
        known = self._heads.get(stream)
        if known and expected in (ANY, known[0]):
            return known
        newest = next(self.read(stream, limit=1, backwards=True), None)
        return (newest.version, newest.position) if newest else (0, 0)

    def _remember(self, stream: str, version: int, position: int) -> None:
        if len(self._heads) > REMEMBERED:
            self._heads.clear()
        self._heads[stream] = version, position


def _tagged(stream: str) -> umadb.Query:
    return umadb.Query([umadb.QueryItem(tags=[stream])])


def _event(stream: str, version: int, event: NewEvent, encoded: tuple[bytes, bytes]) -> umadb.Event:
    data, metadata = encoded
    along = {
        "version": str(version),
        "schema": str(event.schema_version),
        "metadata": metadata.decode(),
        "recorded_at": datetime.now(UTC).isoformat(),  # by the writer's clock: UmaDB keeps no time
    }
    return umadb.Event(event.type, data, [stream], UUID(event.id), along)


def _recorded(answer: "umadb.ReadResponse | umadb.Subscription") -> Iterator[Recorded]:
    while page := answer.next_batch():
        for found in page:
            event, along = found.event, found.event.metadata
            # What others wrote into the same log is taken as it is.
            version, schema = number_of(along.get("version", ""), 0), number_of(along.get("schema", ""), 1)
            metadata, at = along.get("metadata", "{}").encode(), _time(along.get("recorded_at", ""))
            stream, ident, place = next(iter(event.tags), ""), str(event.uuid), (0, found.position)
            yield Recorded(stream, version, event.event_type, schema, event.data, metadata, ident, *place, at)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return NEVER
