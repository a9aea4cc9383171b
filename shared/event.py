"""The event that all labs speak, and its way to and from CloudEvents 1.0.

A frozen value with the attributes of CloudEvents 1.0.2 and four extensions: `partitionkey` (Kafka's key),
`aggregateversion` (our `sequence`: the event's number within its subject), `correlationid` (the business conversation)
and `causationid` (the event or command that this one follows from). An extension that has no value is not there:
neither partitionkey nor those of the Correlation extension may be empty. `aggregateversion` is a name of our own, since
the Sequence extension wants values that are in order as text, and 10 comes before 9.

Whether something is an event is decided here alone: what `from_kafka` takes, `to_kafka` can write, and who stands
between them (outbox, relay, guard) takes the same. The SDK's own value is mutable, keeps its caller's dict and writes
some JSON as Python source; what it gets wrong is guarded here, each guard named by a test.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.base import BaseCloudEvent, EventFactory
from cloudevents.core.bindings import kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from uuid_utils.compat import uuid7

from shared import codec
from shared.attributes import JSON, STRUCTURED, is_json, oddity, plain, received, valid
from shared.errors import EventError, NotReadable

__all__ = ["JSON", "STRICT", "Event", "StrictFormat", "is_json", "new_id"]

_EXTENSIONS = {
    "partitionkey": "partition_key",
    "aggregateversion": "sequence",
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
        optional = {name: str(value) for name, ours in _EXTENSIONS.items() if (value := getattr(self, ours))}
        optional |= {name: value for name in ("subject", "dataschema") if (value := getattr(self, name))}
        return valid(attributes | optional, self.data)

    @classmethod
    def from_cloudevent(cls, event: BaseCloudEvent) -> "Event":
        """From the SDK's event. Raises EventError where an extension cannot be what it claims."""
        attributes = dict(event.get_attributes())
        extensions = {ours: _text(name, attributes.get(name)) for name, ours in _EXTENSIONS.items()}
        return cls(
            id=attributes["id"],
            source=attributes["source"],
            type=attributes["type"],
            subject=attributes.get("subject", ""),
            time=attributes["time"],
            data=event.get_data(),
            datacontenttype=attributes.get("datacontenttype", JSON),
            dataschema=attributes.get("dataschema", ""),
            sequence=_version(extensions.pop("sequence")),
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
            raise self._unwritable(error) from error

    def payload(self) -> bytes:
        """The data as the bytes that a message carries. Raises EventError, as `to_kafka` does."""
        try:
            return STRICT.write_data(self.data, self.datacontenttype)
        except (TypeError, ValueError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> EventError:
        return EventError({"data": [f"cannot be written as {self.datacontenttype!r}: {error}"]})

    @classmethod
    def from_kafka(cls, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> "Event":
        """An event in binary or structured content mode. Raises EventError; the bytes stay with the caller.

        The content type decides the mode, as the binding demands; the SDK goes by any `ce_` header, and reads the
        headers of others too, which may hold anything.
        """
        if value is None:
            raise EventError({"data": ["a tombstone (null value) is not an event"]})
        ours = {name.lower(): header for name, header in headers.items()}
        content_type = ours.get("content-type") or b""
        structured = content_type.lower().startswith(STRUCTURED.encode())
        if not structured and "ce_specversion" not in ours:
            raise EventError({"specversion": ["there is no ce_specversion header"]})
        try:
            attributes, data = _opened(value) if structured else _assembled(ours, value)
            if key is not None:
                attributes["partitionkey"] = codec.text(key)
            return cls.from_cloudevent(received(attributes, data))
        except (ValueError, TypeError, AttributeError) as error:
            raise EventError({"data": [f"cannot be read as {content_type!r}: {error}"]}) from error


class StrictFormat(JSONFormat):
    """JSON as JSON, text as text where it is UTF-8, bytes as bytes; no data as no bytes.

    The SDK's format writes a list in binary mode as Python source, hands bytes that happen to be UTF-8 back as str, and
    takes NaN and nesting of any depth.
    """

    def read(self, event_factory: EventFactory | None, data: str | bytes) -> BaseCloudEvent:
        """Structured mode. Raises EventError, NotReadable, ValueError."""
        event = received(*_opened(data))
        return event_factory(event.get_attributes(), event.get_data()) if event_factory else event

    def write(self, event: BaseCloudEvent) -> bytes:
        """Structured mode. Raises NotWritable."""
        attributes = {name: plain(value) for name, value in event.get_attributes().items() if value is not None}
        data = event.get_data()
        if isinstance(data, bytes | bytearray | memoryview):
            return codec.encode({**attributes, "data_base64": base64.b64encode(data).decode()})
        return codec.encode(attributes if data is None else {**attributes, "data": data})

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        """Binary mode. Raises EventError for bytes that are not the JSON they should be, NotWritable, UnicodeError."""
        if data is None:
            return b""
        if isinstance(data, bytes | bytearray | memoryview):
            if data and is_json(datacontenttype):
                _parsed(bytes(data))
            return bytes(data)
        if isinstance(data, str) and not is_json(datacontenttype):
            return data.encode()
        return codec.encode(data)

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:
        """Binary mode. Raises EventError."""
        if not body:
            return None
        if is_json(datacontenttype):
            return _parsed(body)
        if not (datacontenttype or "").lower().startswith("text/"):
            return body
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body  # of another charset, which its reader has to know


STRICT = StrictFormat()
_envelope = codec.decoder(dict[str, Any])


def _parsed(data: bytes) -> Any:
    try:
        return codec.decode(data)
    except NotReadable as error:
        raise EventError({"data": [f"the content type says JSON, the payload is not: {error}"]}) from error


def _assembled(headers: Mapping[str, bytes], body: bytes) -> tuple[dict[str, Any], Any]:
    """Attributes and data of a message in binary mode. Debezium has headers without a value."""
    found = {name: codec.text(value) for name, value in headers.items() if _is_ours(name) and value is not None}
    attributes = {name.removeprefix("ce_"): value for name, value in found.items()}
    if "content-type" in attributes:
        attributes["datacontenttype"] = attributes.pop("content-type")
    return attributes, STRICT.read_data(body, attributes.get("datacontenttype"))


def _is_ours(header: str) -> bool:
    return header.startswith("ce_") or header == "content-type"


def _opened(body: bytes | str) -> tuple[dict[str, Any], Any]:
    """Attributes and data of a message in structured mode, which is one JSON object."""
    attributes = _envelope(body)
    data, encoded = attributes.pop("data", None), attributes.pop("data_base64", None)
    if encoded is not None:
        data = STRICT.read_data(base64.b64decode(encoded, validate=True), attributes.get("datacontenttype"))
    return attributes, data


def _version(text: str) -> int:
    if odd := oddity("aggregateversion", text):
        raise EventError({"aggregateversion": [odd]})
    return int(text or 0)


def _text(name: str, value: Any) -> str:
    """An extension as text: a foreign producer may write it as another of JSON's types."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
    raise EventError({name: [f"{value!r} is none of CloudEvents' types"]})
