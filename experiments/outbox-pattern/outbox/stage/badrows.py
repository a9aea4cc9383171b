"""Rows of which no event can be made, as they come about by hand or by mistake: for tests and experiments."""

from collections.abc import Iterable
from enum import StrEnum
from uuid import uuid4

from shared.postgres import Connection

INSERT = "insert into outbox (id, aggregate_type, aggregate_id, payload, type, source) values (%s, %s, %s, %s, %s, %s)"


class Bad(StrEnum):
    """What is wrong with the row."""

    UNKNOWN_TYPE = "unknown aggregate type"
    NOT_JSON = "payload not JSON"
    NUL_BYTE = "NUL byte"
    MISSING_FIELDS = "missing fields"
    TOO_LARGE = "too large"


def write_bad_rows(
    connection: Connection, topic: str, kinds: Iterable[Bad] = tuple(Bad), unknown: str = "no.such.type"
) -> dict[Bad, str]:
    """Insert one row of each kind, all but the unknown for the topic; returns their event ids."""
    rows = {
        Bad.UNKNOWN_TYPE: (unknown, "a", b"{}", "t", "/s"),
        Bad.NOT_JSON: (topic, "a", b"not json", "t", "/s"),
        Bad.NUL_BYTE: (topic, "a", b'{"name":"\x00"}', "t", "/s"),
        Bad.MISSING_FIELDS: (topic, "a", b"{}", "", ""),
        Bad.TOO_LARGE: (topic, "a", b'"' + b"x" * 2_000_000 + b'"', "t", "/s"),
    }
    ids = {kind: str(uuid4()) for kind in kinds}
    for kind, ident in ids.items():
        connection.execute(INSERT, [ident, *rows[kind]])
    return ids
