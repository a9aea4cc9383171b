"""Another program that writes into the same store, and checks nothing."""

from unittest.mock import patch

import psycopg

from sourcing import postgres
from sourcing.event import NewEvent
from sourcing.store import EventStore
from sourcing.stores import adapting

TYPE = "Foreign"
# What it may write as the data of an event.
UNREADABLE = (
    b"no JSON at all",
    b'{"customer":"\xfcnal"}',  # Latin-1
    b'{"customer":"\\ud83d"}',
    b'{"n":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b"[1]",
)


def append(store: EventStore, stream: str, data: bytes) -> bool:
    """Whether the store took an event with these bytes as its data."""

    def encode(stream: str, event: NewEvent) -> tuple[bytes, bytes]:
        return data, b"{}"

    with patch.object(adapting, "encode", encode), patch.object(postgres, "encode", encode):
        try:
            store.append(stream, [NewEvent(TYPE, {})])
        except (psycopg.DataError, UnicodeError):  # a column of type `jsonb` takes it from nobody
            return False
    return True
