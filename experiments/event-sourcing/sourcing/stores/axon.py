"""Axon Server, by `axonclient`. Its sequence numbers count from 0, ours from 1.

The client's own stub is called where its wrapper has no such call, or waits by the clock. An aggregate's events are
read without their place in the order of all: `position` is 0 there, and right in `read_all` and `subscribe`.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

import grpc
from axonclient.client import AxonClient, AxonEvent
from axonclient.exceptions import OutOfRangeError
from axonclient.protos.common_pb2 import MetaDataValue
from axonclient.protos.event_pb2 import Event, GetEventsRequest, ReadHighestSequenceNrRequest

from shared.servers.server import Endpoint
from sourcing.errors import NotSupported
from sourcing.event import START, NewEvent, Position, Recorded, category
from sourcing.store import ANY, Capability
from sourcing.stores.adapting import Refusing, cancelling, nothing, number_of, prepared, settled, time_of

METADATA = "metadata"  # the entry of Axon's metadata that holds ours, as it is
PERMITS = 2**31 - 1  # events that a subscription may be sent: gRPC itself slows a sender down

create = drop = nothing


def open_store(endpoint: Endpoint, space: str) -> "AxonStore":
    return AxonStore(AxonClient(endpoint.url))


class AxonStore(Refusing):
    """An EventStore on one Axon Server, in its default context."""

    name: ClassVar[str] = "Axon Server"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.EXPECTED_VERSION, Capability.READ_ALL, Capability.SUBSCRIBE}
    )

    def __init__(self, client: AxonClient) -> None:
        self.client = client

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        while True:
            version = self._version(stream) if expected == ANY else expected
            new = [_event(stream, version + n, *both) for n, both in enumerate(zip(events, encoded, strict=True))]
            try:
                self.client.append_event(new)
            except OutOfRangeError:
                if expected != ANY:
                    return settled(self, stream, events, expected, lambda: self._version(stream))
            else:
                return version + len(events)

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        if backwards:
            raise NotSupported(self.name, Capability.BACKWARDS)
        found = self.client.iter_aggregate_events(stream, initial_sequence=after, allow_snapshots=False)
        return iter([_recorded(event.to_grpc(), 0) for event in islice(found, limit)])

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        last = self.client.get_last_token()
        wanted = min(limit, last + 1 - after[1])
        if wanted <= 0:
            return []
        with self._events(after[1], wanted) as found:
            return [_recorded(each.event, each.token + 1) for each in islice(found, wanted)]

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        with self._events(after[1], PERMITS) as found, cancelling(stop, found.cancel):
            try:
                for each in found:
                    yield _recorded(each.event, each.token + 1)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED or not stop.is_set():
                    raise

    def close(self) -> None:
        self.client.close_connection()

    @contextmanager
    def _events(self, token: int, permits: int) -> Iterator[Any]:
        """All events from the token on, as they come. The call lasts as long as our side of it is open."""
        requests: queue.SimpleQueue[GetEventsRequest | None] = queue.SimpleQueue()
        requests.put(GetEventsRequest(tracking_token=token, number_of_permits=permits))
        call = self.client.event_store_stub.ListEvents(iter(requests.get, None))
        try:
            yield call
        finally:
            call.cancel()
            requests.put(None)

    def _version(self, stream: str) -> int:
        asked = ReadHighestSequenceNrRequest(aggregate_id=stream)
        return int(self.client.event_store_stub.ReadHighestSequenceNr(asked).to_sequence_nr) + 1


def _event(stream: str, sequence: int, event: NewEvent, encoded: tuple[bytes, bytes]) -> AxonEvent:
    data, metadata = encoded
    return AxonEvent(
        aggregate_identifier=stream,
        aggregate_sequence_number=sequence,
        aggregate_type=category(stream),
        message_identifier=event.id,
        payload_type=event.type,
        payload_revision=str(event.schema_version),
        payload_data=data,
        meta_data={METADATA: MetaDataValue(text_value=metadata.decode())},
    )


def _recorded(event: Event, position: int) -> Recorded:
    stream, version, payload = event.aggregate_identifier, event.aggregate_sequence_number + 1, event.payload
    schema = number_of(payload.revision, 1)
    metadata = event.meta_data[METADATA].text_value.encode() if METADATA in event.meta_data else b"{}"
    ident, at = event.message_identifier, time_of(event.timestamp)
    return Recorded(stream, version, payload.type, schema, payload.data, metadata, ident, 0, position, at)
