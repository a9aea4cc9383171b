"""Events as they go into a store and as they come out of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from shared import codec
from shared.errors import NotReadable, NotWritable
from shared.event import new_id
from sourcing.errors import (
    EventTooLarge,
    StreamNameNotAllowed,
    UndecodablePayload,
    UnwritableEvent,
)

Data = dict[str, Any]
# A place in the order of all events: (xid, position), see Recorded. Comparable within one store.
Position = tuple[int, int]
START: Position = (0, 0)  # before the first event

MAX_BYTES = 1_000_000  # of data and metadata together: what every store here takes (Kafka's default is the smallest)
MAX_NAME = 200  # characters of a stream's name
TOMBSTONE = "$deleted"


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who, why, and within what: the audit trail that CRUD does not keep."""

    correlation_id: str = ""  # the business conversation
    causation_id: str = ""  # the command or event that this one follows from
    actor: str = ""
    reason: str = ""


NO_METADATA = Metadata()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened and is not stored yet. `data` is a JSON object, `schema_version` says of what shape."""

    type: str
    data: Mapping[str, Any]
    schema_version: int = 1
    metadata: Metadata = NO_METADATA
    id: str = field(default_factory=new_id)


class Recorded(NamedTuple):
    """An event of a store, its data as the bytes that were written: `data_of` decodes, and says what is wrong."""

    stream: str
    version: int  # from 1 within the stream
    type: str
    schema_version: int
    data: bytes
    metadata: bytes
    id: str
    xid: int  # the transaction, where positions alone are no order to read by (Postgres); 0 elsewhere
    position: int
    recorded_at: datetime

    @property
    def place(self) -> Position:
        """What a checkpoint keeps."""
        return self.xid, self.position


_allowed = re.compile(rf"[!-#%-~][!-~]{{0,{MAX_NAME - 1}}}").fullmatch  # printable ASCII, and no $ before it
_data = codec.decoder(Data)
_metadata = codec.decoder(Metadata)


def encode(stream: str, event: NewEvent) -> tuple[bytes, bytes]:
    """The event's (data, metadata) as JSON. Raises EventTooLarge, and UnwritableEvent for what nobody could read."""
    try:
        data = codec.encode(event.data)
        metadata = b"{}" if event.metadata is NO_METADATA else _encode_metadata(event.metadata)
    except (NotWritable, NotReadable) as error:
        raise UnwritableEvent(stream, event.type, str(error)) from error
    if not data.startswith(b"{"):
        raise UnwritableEvent(stream, event.type, "the data is not a JSON object")
    if len(data) + len(metadata) > MAX_BYTES:
        raise EventTooLarge(stream, event.type, len(data) + len(metadata), MAX_BYTES)
    return data, metadata


def data_of(event: Recorded) -> Data:
    """The data. Raises UndecodablePayload naming where the event lies."""
    try:
        return _data(event.data)
    except NotReadable as error:
        raise UndecodablePayload(*event[:3], f"the data is not a JSON object: {error}") from error


def metadata_of(event: Recorded) -> Metadata:
    """Likewise, the metadata."""
    try:
        return _metadata(event.metadata)
    except NotReadable as error:
        raise UndecodablePayload(*event[:3], f"the metadata is not what it should be: {error}") from error


def custom_of(stream: str, data: bytes) -> Data:
    """What a stream's metadata say beside the store's own. Raises NotReadable naming the stream."""
    try:
        return _data(data)
    except NotReadable as error:
        raise NotReadable(f"the metadata of stream {stream!r} is not a JSON object: {error}") from error


def encode_custom(stream: str, custom: Data) -> bytes:
    """The opposite. Raises NotWritable."""
    try:
        return codec.encode(custom)
    except NotWritable as error:
        raise NotWritable(f"the metadata of stream {stream!r} cannot be written: {error}") from error


def check_name(stream: str) -> None:
    """Raise StreamNameNotAllowed unless every store here takes the name: `category-id` by convention."""
    if _allowed(stream):  # one look for all of the below, for each append pays for it
        return
    if not stream or len(stream) > MAX_NAME:
        raise StreamNameNotAllowed(stream, f"it must have 1 to {MAX_NAME} characters")
    if stream.startswith("$"):
        raise StreamNameNotAllowed(stream, "names that begin with $ are the store's own")
    raise StreamNameNotAllowed(stream, "it must be printable ASCII without spaces")


def category(stream: str) -> str:
    """What comes before the first hyphen: `order` of `order-17`."""
    return stream.partition("-")[0]


def _encode_metadata(metadata: Metadata) -> bytes:
    """Raises NotWritable, and NotReadable for a field that is no text."""
    encoded = codec.encode({name: value for name, value in msgspec.structs.asdict(metadata).items() if value != ""})
    _metadata(encoded)
    return encoded
