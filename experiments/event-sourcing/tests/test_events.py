"""What a store accepts can be read back, by anybody; what others wrote and nobody can read names its event."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sourcing.errors import EventTooLarge, SourcingError, UndecodablePayload, UnwritableEvent
from sourcing.event import Metadata, NewEvent, Recorded, data_of, encode, metadata_of

from shared.codec import MAX_DEPTH

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEEP = b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def stored(data: bytes, metadata: bytes = b"{}") -> Recorded:
    return Recorded("order-1", 7, "Placed", 1, data, metadata, "", 0, 1, NOW)


UNREADABLE = {
    "Latin-1": b'{"customer":"\xfcnal"}',
    "5,000 deep": DEEP,
    "half a surrogate pair": b'{"customer":"\\ud83d"}',
    "NaN": b'{"cents":NaN}',
    "a list": b"[1]",
    "null": b"null",
    "nothing": b"",
    "a byte 0": b'{"a":"\x00"}',
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_names_its_event(raw: bytes) -> None:
    for read, event in ((data_of, stored(raw)), (metadata_of, stored(b"{}", raw))):
        with pytest.raises(UndecodablePayload, match="event 7 of stream 'order-1', type 'Placed'"):
            read(event)


UNWRITABLE: dict[str, tuple[Any, str]] = {
    "NaN": ({"cents": math.nan}, r"\['cents'\] is nan"),
    "infinity in a list": ({"a": [-math.inf]}, r"\['a'\]\[0\] is -inf"),
    "Decimal": ({"amount": Decimal("10.50")}, r"\['amount'\] is a Decimal"),
    "datetime": ({"at": NOW}, r"\['at'\] is a datetime"),
    "tuple": ({"pair": (1, 2)}, r"\['pair'\] is a tuple"),
    "number as a key": ({"lines": {1: "tea"}}, r"\['lines'\] has the key 1"),
    "half a surrogate pair": ({"n": "\ud83d"}, r"\['n'\] holds half of a surrogate pair"),
    "bytes": ({"raw": b"x"}, r"\['raw'\] is a bytes"),
    "too deep": ({"x": nested(MAX_DEPTH)}, "nested more than"),
    "far too deep": ({"x": nested(100_000)}, "nested more than"),
    "a list": ([1], "not a JSON object"),
}


@pytest.mark.parametrize(("data", "problem"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_could_not_be_read_back_is_refused_with_its_place(data: Any, problem: str) -> None:
    with pytest.raises(UnwritableEvent, match=problem) as caught:
        encode("order-1", NewEvent("Placed", data))
    assert "stream 'order-1': an event 'Placed'" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SourcingError)


@pytest.mark.parametrize("actor", ["\ud83d", 7, None, ("ann",)], ids=repr)
def test_metadata_that_could_not_be_read_back_are_refused_too(actor: Any) -> None:
    with pytest.raises(UnwritableEvent, match="order-1"):
        encode("order-1", NewEvent("Placed", {}, metadata=Metadata(actor=actor)))


def test_the_deepest_that_is_written_is_read() -> None:
    data = {"x": nested(MAX_DEPTH - 1)}
    assert data_of(stored(encode("order-1", NewEvent("Placed", data))[0])) == data


def test_size_is_said_before_anything_is_sent() -> None:
    with pytest.raises(EventTooLarge, match="'Placed' of 1,000,010 bytes"):
        encode("order-1", NewEvent("Placed", {"x": "y" * 1_000_000}))
