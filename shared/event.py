"""The event that all labs speak, and its way to and from CloudEvents 1.0.

A frozen value with the attributes of CloudEvents 1.0.2 and four extensions: `partitionkey` (Kafka's key), `sequence`
(position within the subject), `correlationid` (the business conversation) and `causationid` (the event or command
that this one follows from). The SDK's own value is mutable, keeps its caller's dict and writes some JSON as Python
source; what it gets wrong is guarded here, each guard named by a test.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import kafka
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from uuid_utils.compat import uuid7

from shared.errors import EventError

JSON = "application/json"
_JSON_TYPE = re.compile(r"^(application|text)/([\w.\-]+\+)?json(;.*)?$")
_EXTENSIONS = {
    "partitionkey": "partition_key",
    "sequence": "sequence",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
}


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in the order of its making, which indexes like."""
    return str(uuid7())


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `data` is JSON-like, or bytes where `datacontenttype` is not JSON."""

    type: str
    source: str
    subject: str = ""
    data: Any = None
    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    correlation_id: str = ""
    causation_id: str = ""
    partition_key: str = ""
    sequence: int = 0  # from 1; 0: not numbered
    datacontenttype: str = JSON
    dataschema: str = ""

    def to_cloudevent(self) -> CloudEvent:
        """The SDK's event, on attributes of its own. Raises EventError naming every attribute that is wrong."""
        attributes = {
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "specversion": "1.0",
            "time": self.time,
            "datacontenttype": self.datacontenttype,
        }
        optional = {name: str(getattr(self, ours)) for name, ours in _EXTENSIONS.items() if getattr(self, ours)}
        optional |= {name: value for name in ("subject", "dataschema") if (value := getattr(self, name))}
        try:
            return CloudEvent(attributes | optional, self.data)
        except CloudEventValidationError as error:
            raise EventError(_problems(error)) from error

    @classmethod
    def from_cloudevent(cls, event: BaseCloudEvent) -> "Event":
        """From the SDK's event. Raises EventError where an extension cannot be what it claims."""
        attributes = dict(event.get_attributes())
        # A foreign producer may write an integer extension as a JSON number.
        extensions = {ours: str(attributes.get(name, "")) for name, ours in _EXTENSIONS.items()}
        return cls(
            id=attributes["id"],
            source=attributes["source"],
            type=attributes["type"],
            subject=attributes.get("subject", ""),
            time=attributes["time"],
            data=event.get_data(),
            datacontenttype=attributes.get("datacontenttype", JSON),
            dataschema=attributes.get("dataschema", ""),
            sequence=_number(extensions.pop("sequence")),
            **extensions,
        )

    def to_kafka(self) -> kafka.KafkaMessage:
        """A Kafka message in binary content mode: key, value, headers `ce_*` (CloudEvents Kafka binding 1.0.2).

        Raises EventError also where the data cannot be written as what `datacontenttype` says.
        """
        event = self.to_cloudevent()
        try:
            return kafka.to_binary(event, STRICT)
        except (TypeError, ValueError) as error:
            raise EventError({"data": [f"cannot be written as {self.datacontenttype!r}: {error}"]}) from error

    @classmethod
    def from_kafka(cls, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> "Event":
        """An event in binary or structured content mode. Raises EventError; the bytes stay with the caller.

        The content type decides the mode, as the binding demands; the SDK goes by any `ce_` header.
        """
        if value is None:
            raise EventError({"data": ["a tombstone (null value) is not an event"]})
        structured = headers.get("content-type", b"").lower().startswith(b"application/cloudevents")
        message = kafka.KafkaMessage(dict(headers), key, value)
        read = kafka.from_structured if structured else kafka.from_binary
        try:
            if not structured and "ce_specversion" not in headers:
                raise EventError({"specversion": ["there is no ce_specversion header"]})
            return cls.from_cloudevent(read(message, STRICT, _received))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise EventError({"data": [f"cannot be read as {headers.get('content-type', b'?')!r}: {error}"]}) from error


_compact = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # dumps() would make an encoder each time


class StrictFormat(JSONFormat):
    """JSON as JSON, text as text, bytes as bytes.

    The SDK's format writes a list in binary mode as Python source and hands bytes that happen to be UTF-8 back as str.
    """

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        if data is None:
            return b""
        if isinstance(data, bytes | bytearray | memoryview):
            return bytes(data)
        if is_json(datacontenttype):
            return _compact(data).encode()
        return data.encode() if isinstance(data, str) else json.dumps(data, allow_nan=False).encode()

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        if not body:
            return None
        if is_json(datacontenttype):
            return json.loads(body)
        return body.decode() if (datacontenttype or "").startswith("text/") else body


STRICT = StrictFormat()


def is_json(content_type: str | None) -> bool:
    """Whether a content type means JSON; no content type does (CloudEvents 1.0.2, datacontenttype)."""
    return not content_type or content_type == JSON or _JSON_TYPE.match(content_type) is not None


def _received(attributes: Mapping[str, Any], data: Any) -> CloudEvent:
    """The SDK invents an id and a time where a message has none: every delivery would be another event."""
    problems = {name: ["is missing"] for name in ("id", "time") if name not in attributes}
    try:
        event = CloudEvent(dict(attributes), data)
    except CloudEventValidationError as error:
        raise EventError(problems | _problems(error)) from error
    if problems:
        raise EventError(problems)
    return event


def _problems(error: CloudEventValidationError) -> dict[str, list[str]]:
    return {name: [str(problem) for problem in found] for name, found in error.errors.items()}


def _number(text: str) -> int:
    if text and not text.isdecimal():
        raise EventError({"sequence": [f"{text!r} is not a whole number"]})
    return int(text or 0)
