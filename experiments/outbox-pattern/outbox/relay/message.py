"""An outbox row as the Kafka message it becomes: CloudEvents binary mode, the same from every relay.

Debezium's EventRouter makes the same headers from the same columns (see debezium.py), so that consumers need not know
which relay is at work. What cannot become such a message has a reason, and is parked (see parking.py).
"""

from typing import Any, NamedTuple

import msgspec

from shared.event import is_json

COLUMNS = (
    "position, xid::text as xid_text, aggregate_type, aggregate_id, payload, id::text, type, source, sequence::text, "
    "time, correlation_id, causation_id, content_type, spec_version"
)
Headers = list[tuple[str, str | bytes | None]]
# The fields of OutboxRow without their names. The fast relays make these: a name tuple costs 0.15 us, of 3.5 in all.
Row = tuple[Any, ...]


class OutboxRow(NamedTuple):
    """A row of the outbox, in the order of COLUMNS. `xid_text`: a cast that kept its name would hide the column
    from ORDER BY, and the index with it."""

    position: int
    xid: str
    aggregate_type: str
    aggregate_id: str | bytes
    payload: bytes
    id: str | bytes
    type: str | bytes
    source: str | bytes
    sequence: str | bytes
    time: str | bytes
    correlation_id: str | bytes
    causation_id: str | bytes
    content_type: str | bytes
    spec_version: str | bytes


def text(value: str | bytes) -> str:
    """An attribute as text, whichever relay read it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def headers(row: Row) -> Headers:
    """CloudEvents attributes as Kafka headers; the key carries `partitionkey`."""
    _, _, _, subject, _, ident, type_, source, sequence, time, correlation, causation, content_type, version = row
    return [
        ("ce_specversion", version),
        ("ce_id", ident),
        ("ce_type", type_),
        ("ce_source", source),
        ("ce_subject", subject),
        ("ce_time", time),
        ("ce_sequence", sequence),
        ("ce_correlationid", correlation),
        ("ce_causationid", causation),
        ("content-type", content_type),
    ]


def problem(row: Row) -> str:
    """Why the row is not an event, naming all that is missing; empty when it is one."""
    if not (row[2] and row[3] and row[6] and row[7]):
        required = "aggregate_type", "aggregate_id", "type", "source"
        return f"missing: {', '.join(name for name in required if not getattr(OutboxRow._make(row), name))}"
    # The log relay's attributes are bytes, the others' are text; both are what a header takes.
    content_type = row[12]
    if content_type == "application/json" or content_type == b"application/json" or is_json(text(content_type)):
        return _not_json(row[4])
    return ""


# Reads to the end and makes nothing of it, in a third of the time; the encoding of the text it leaves to us.
_json = msgspec.json.Decoder(msgspec.Raw)


def _not_json(payload: bytes) -> str:
    try:
        _json.decode(payload)
        if not payload.isascii():
            payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"the content type says JSON, the payload is not: {error}"
    except RecursionError:
        return "the content type says JSON, the payload is nested too deeply to be read"
    return ""
