"""The Postgres recorder of the Python library `eventsourcing`, beneath its own aggregates and applications.

Every append locks the whole table against other writers, which makes the ids that readers follow gapless in time. What
the library's transcoders would put into `state` is our JSON. It does not ask whether the event before is there: a
writer that expects more than there is would leave a gap, so the adapter asks, unless it has seen that version itself.
"""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import msgspec
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from shared import codec, postgres
from shared.servers.server import Endpoint
from sourcing.event import START, NewEvent, Position, Recorded
from sourcing.store import ANY, Capability
from sourcing.stores.adapting import NEVER, Refusing, cancelling, last_version, prepared, settled

REMEMBERED = 100_000  # streams


class State(msgspec.Struct):
    """What the library keeps of an event beside its version and topic. The raw parts are the bytes that were given."""

    id: str
    schema_version: int
    recorded_at: datetime
    data: msgspec.Raw
    metadata: msgspec.Raw


_state = msgspec.json.Decoder(State).decode  # not the codec's: the data in it may be as deep as is allowed alone
_encode = msgspec.json.Encoder().encode


def create(endpoint: Endpoint, space: str) -> None:
    postgres.create_schema(endpoint, space)
    store = open_store(endpoint, space)
    store.recorder.create_table()
    store.close()


def drop(endpoint: Endpoint, space: str) -> None:
    postgres.drop_schema(endpoint, space)


def open_store(endpoint: Endpoint, space: str) -> "RecorderStore":
    # One connection, and more for a subscription, which listens on one and reads on another.
    datastore = PostgresDatastore(
        *("", "", "", "", ""), pool_size=1, max_overflow=5, schema=space, originator_id_type="text"
    )
    # The library has five parameters for an address. Its pool, which is not open yet, takes a whole one.
    datastore.pool.kwargs = {**conninfo_to_dict(endpoint.url), "row_factory": dict_row}
    return RecorderStore(datastore)


class RecorderStore(Refusing):
    """An EventStore on the library's application recorder, with its default locking."""

    name: ClassVar[str] = "eventsourcing"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.EXPECTED_VERSION, Capability.BACKWARDS, Capability.READ_ALL, Capability.SUBSCRIBE}
    )

    def __init__(self, datastore: PostgresDatastore) -> None:
        self.datastore = datastore
        self.recorder = PostgresApplicationRecorder(datastore)
        self._seen: dict[str, int] = {}  # versions that are there: nothing is ever deleted here

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        while True:
            version = self._version(stream, expected)
            if expected in (ANY, version) and self._insert(stream, version, events, encoded):
                self._remember(stream, version + len(events))
                return version + len(events)
            self._seen.pop(stream, None)
            if expected != ANY:
                return settled(self, stream, events, expected, lambda: last_version(self, stream))

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        found = self.recorder.select_events(stream, gt=after or None, desc=backwards, limit=limit)
        return (_recorded(event, 0) for event in found)

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        found = self.recorder.select_notifications(after[1], limit, inclusive_of_start=False)
        return [_recorded(event, int(event.id)) for event in found]

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        with self.recorder.subscribe(gt=after[1]) as subscription, cancelling(stop, subscription.stop):
            for event in subscription:
                yield _recorded(event, int(event.id))

    def close(self) -> None:
        self.datastore.close()

    def _insert(
        self, stream: str, version: int, events: Sequence[NewEvent], encoded: Sequence[tuple[bytes, bytes]]
    ) -> bool:
        """Whether they could be inserted after that version."""
        now, new = datetime.now(UTC), []
        for number, (event, (data, metadata)) in enumerate(zip(events, encoded, strict=True), version + 1):
            state = State(event.id, event.schema_version, now, msgspec.Raw(data), msgspec.Raw(metadata))
            new.append(StoredEvent(stream, number, event.type, _encode(state)))
        try:
            self.recorder.insert_events(new)
        except IntegrityError:
            return False
        return True

    def _version(self, stream: str, expected: int) -> int:
        """The stream's version. The key says whether the next one is free, so one that was seen here will do."""
        if expected == 0:
            return 0
        seen = self._seen.get(stream)
        return seen if seen and expected in (ANY, seen) else last_version(self, stream)

    def _remember(self, stream: str, version: int) -> None:
        if len(self._seen) > REMEMBERED:
            self._seen.clear()
        self._seen[stream] = version


def _recorded(event: StoredEvent | Notification, position: int) -> Recorded:
    stream, version, state = str(event.originator_id), event.originator_version, _opened(event.state)
    schema, data, metadata = state.schema_version, bytes(state.data), bytes(state.metadata)
    return Recorded(stream, version, event.topic, schema, data, metadata, state.id, 0, position, state.recorded_at)


def _opened(state: bytes) -> State:
    try:
        return _state(state)
    except codec.MALFORMED:
        return State("", 1, NEVER, msgspec.Raw(state), msgspec.Raw(b"{}"))
