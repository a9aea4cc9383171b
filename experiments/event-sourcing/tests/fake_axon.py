"""A FAKE of Axon Server's event store protocol (event.proto), for tests of the adapter where no server can be had.

Written after a real Axon Server 4.6, which passed the same contract (LAB_AXON=host:port asks one). It proves what the
adapter sends and how it takes answers; of the real server it proves nothing.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from axonclient.protos import event_pb2, event_pb2_grpc


class FakeAxon(event_pb2_grpc.EventStoreServicer):
    """One log in memory; the token of an event is its index."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.grown = threading.Condition()

    def AppendEvent(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: N802
        events = list(requests)
        with self.grown:
            due = self._highest(events[0].aggregate_identifier) + 1
            for number, event in enumerate(events, due):
                if event.aggregate_sequence_number != number:
                    found, stream = event.aggregate_sequence_number, event.aggregate_identifier
                    told = f"[AXONIQ-2000] Invalid sequence number {found} for aggregate {stream}, expected {number}"
                    context.abort(grpc.StatusCode.OUT_OF_RANGE, told)
            self.log += events
            self.grown.notify_all()
        return event_pb2.Confirmation(success=True)

    def ListAggregateEvents(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for event in list(self.log):
            ours = event.aggregate_identifier == request.aggregate_id
            if ours and event.aggregate_sequence_number >= request.initial_sequence:
                yield event

    def ListEvents(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """As many as it was permitted to send, from the token on; it waits for more until the caller goes."""
        first = next(requests)
        token, permits = first.tracking_token, first.number_of_permits
        while context.is_active():
            with self.grown:
                fresh = self.log[token:] or (self.grown.wait(0.05) and self.log[token:]) or []
            for event in fresh[:permits]:
                yield event_pb2.EventWithToken(token=token, event=event)
                token, permits = token + 1, permits - 1

    def ReadHighestSequenceNr(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return event_pb2.ReadHighestSequenceNrResponse(to_sequence_nr=self._highest(request.aggregate_id))

    def GetLastToken(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return event_pb2.TrackingToken(token=len(self.log) - 1)

    def _highest(self, stream: str) -> int:
        own = (event.aggregate_sequence_number for event in self.log if event.aggregate_identifier == stream)
        return max(own, default=-1)


@contextmanager
def serving() -> Iterator[tuple[FakeAxon, str]]:
    """The fake, and its host:port."""
    server, fake = grpc.server(ThreadPoolExecutor(8)), FakeAxon()
    event_pb2_grpc.add_EventStoreServicer_to_server(fake, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield fake, f"127.0.0.1:{port}"
    server.stop(None).wait()
