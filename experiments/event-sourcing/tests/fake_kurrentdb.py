"""A FAKE of KurrentDB's wire protocol (streams.proto), for tests of the adapter where no server can be had.

It answers the client's own generated stubs, as the protocol's comments and the client's error mapping say a server
does. It proves what the adapter sends and how it takes answers; of the real server it proves nothing.
"""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from json import loads
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf import any_pb2
from kurrentdbclient.protos.v1 import shared_pb2, status_pb2, streams_pb2, streams_pb2_grpc

Stored = streams_pb2.ReadResp.ReadEvent.RecordedEvent
END = 2**64 - 1


class FakeKurrentDB(streams_pb2_grpc.StreamsServicer):
    """One log in memory. `requests` are the appends and tombstones that came in, by their expected revision."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.deleted: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.grown = threading.Condition()
        with self.grown:  # a server's log begins with events of its own
            self._store("$users", 0, "$UsersInitialized", b"{}", b"", str(uuid4()))

    def Append(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: N802
        first, *rest = requests
        options, proposed = first.options, [request.proposed_message for request in rest]
        stream = options.stream_identifier.stream_name.decode()
        with self.grown:
            if stream in self.deleted:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Event stream '{stream}' is deleted.")
            if self._expects(stream, options.WhichOneof("expected_stream_revision"), options.revision):
                answer = streams_pb2.AppendResp()
                answer.success.position.commit_position = self._write(stream, proposed)
                return answer
            wrong = streams_pb2.AppendResp.WrongExpectedVersion()
            if (actual := self._revision(stream)) < 0:
                wrong.current_no_stream.SetInParent()
            else:
                wrong.current_revision = actual
            return streams_pb2.AppendResp(wrong_expected_version=wrong)

    def BatchAppend(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for request in requests:
            stream = request.options.stream_identifier.stream_name.decode()
            answer = streams_pb2.BatchAppendResp(correlation_id=request.correlation_id)
            with self.grown:
                if stream in self.deleted:
                    problem: Any = shared_pb2.StreamDeleted(stream_identifier=request.options.stream_identifier)
                elif self._batch_expects(stream, request.options):
                    answer.success.position.commit_position = self._write(stream, request.proposed_messages)
                    yield answer
                    continue
                else:
                    problem = self._wrong(stream)
            detail = any_pb2.Any()
            detail.Pack(problem)
            answer.error.CopyFrom(status_pb2.Status(message="refused", details=detail))
            yield answer

    def Tombstone(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        options = request.options
        stream = options.stream_identifier.stream_name.decode()
        with self.grown:
            if stream in self.deleted:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Event stream '{stream}' is deleted.")
            if not self._expects(stream, options.WhichOneof("expected_stream_revision"), options.revision):
                told = (
                    f"Stream: {stream}, Expected version: {options.revision}, Actual version: {self._revision(stream)}"
                )
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Append failed due to WrongExpectedVersion. {told}")
            self._store(stream, END // 2, "$streamDeleted", b"", b"", str(uuid4()))
            self.deleted.add(stream)
        return streams_pb2.TombstoneResp()

    def Read(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        options = request.options
        if options.HasField("all"):
            yield from self._all(options, context)
            return
        stream = options.stream.stream_identifier.stream_name.decode()
        if stream in self.deleted:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"Event stream '{stream}' is deleted.")
        found = [event for event in self.log if _name(event) == stream]
        if not found:
            yield streams_pb2.ReadResp(stream_not_found=streams_pb2.ReadResp.StreamNotFound())
            return
        hidden = self._truncated(stream)
        found = [event for event in found if event.stream_revision >= hidden]
        if options.read_direction == streams_pb2.ReadReq.Options.Backwards:
            found.reverse()
        elif options.stream.WhichOneof("revision_option") == "revision":
            found = [event for event in found if event.stream_revision >= options.stream.revision]
        yield from map(_answer, found[: options.count])

    def _all(self, options: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """$all, from a position on (a subscription: after it), filtered; a subscription stays and waits for more."""
        live = options.HasField("subscription")
        start = options.all.position.commit_position + live if options.all.HasField("position") else 0
        wanted, left = re.compile(options.filter.stream_identifier.regex), END if live else options.count
        if live:
            yield streams_pb2.ReadResp(confirmation=streams_pb2.ReadResp.SubscriptionConfirmation(subscription_id="s"))
        while context.is_active():
            with self.grown:
                fresh = self.log[start:] or (live and self.grown.wait(0.05) and self.log[start:]) or []
            for event in fresh:
                start = event.commit_position + 1
                if wanted.search(_name(event)) and left > 0:
                    left -= 1
                    yield _answer(event)
            if not live:
                return

    def _batch_expects(self, stream: str, options: Any) -> bool:
        return self._expects(stream, options.WhichOneof("expected_stream_position"), options.stream_position)

    def _expects(self, stream: str, kind: str, revision: int) -> bool:
        numbered = kind in ("revision", "stream_position")
        self.requests.append((stream, str(revision) if numbered else kind))
        actual = self._revision(stream)
        return kind == "any" or (kind == "no_stream" and actual < 0) or (numbered and actual == revision)

    def _wrong(self, stream: str) -> Any:
        wrong = shared_pb2.WrongExpectedVersion()
        if (actual := self._revision(stream)) < 0:
            wrong.current_no_stream.SetInParent()
        else:
            wrong.current_stream_revision = actual
        return wrong

    def _revision(self, stream: str) -> int:
        return max((event.stream_revision for event in self.log if _name(event) == stream), default=-1)

    def _truncated(self, stream: str) -> int:
        settings = [loads(event.data) for event in self.log if _name(event) == f"$${stream}"]
        return int(settings[-1].get("$tb", 0)) if settings else 0

    def _write(self, stream: str, proposed: Any) -> int:
        """Store them; returns the position of the last."""
        for message in proposed:
            type_, ident = message.metadata["type"], message.id.string
            self._store(stream, self._revision(stream) + 1, type_, message.data, message.custom_metadata, ident)
        return len(self.log) - 1

    def _store(self, stream: str, revision: int, type_: str, data: bytes, metadata: bytes, ident: str) -> None:
        event = Stored(stream_revision=revision, commit_position=len(self.log), prepare_position=len(self.log))
        event.id.string, event.stream_identifier.stream_name = ident, stream.encode()
        event.data, event.custom_metadata = data, metadata
        event.metadata.update({"type": type_, "content-type": "application/json", "created": "17000000000000000"})
        self.log.append(event)
        self.grown.notify_all()


def _name(event: Any) -> str:
    return str(event.stream_identifier.stream_name.decode())


def _answer(event: Any) -> Any:
    found = streams_pb2.ReadResp.ReadEvent(event=event, commit_position=event.commit_position)
    return streams_pb2.ReadResp(event=found)


@contextmanager
def serving() -> Iterator[tuple[FakeKurrentDB, str]]:
    """The fake, and its host:port."""
    server, fake = grpc.server(ThreadPoolExecutor(8)), FakeKurrentDB()
    streams_pb2_grpc.add_StreamsServicer_to_server(fake, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield fake, f"127.0.0.1:{port}"
    server.stop(None).wait()
