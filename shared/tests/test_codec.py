"""One rule on what can be read and written: nothing else than NotReadable or NotWritable ever comes out."""

import math
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import codec
from shared.errors import NotReadable, NotWritable


class Order(msgspec.Struct):
    customer: str


UNREADABLE = {
    "a Latin-1 byte elsewhere": b'{"customer":"x","other":"\xfcnal"}',
    "half a surrogate pair elsewhere": b'{"customer":"x","other":["\\ud83d"]}',
    "more than a double elsewhere": b'{"customer":"x","other":1e400}',
    "a Latin-1 byte": b'{"customer":"\xfcnal"}',
    "a byte that UTF-8 never has": b"\xff",
    "UTF-16": '{"customer":"x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"customer":"x"}',
    "brackets without an end": b"[" * 1_000_000,
    "deep arrays": b'{"customer":"x","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "half a surrogate pair": b'{"customer":"\\ud83d"}',
    "the other half": b'{"customer":"\\ude00 x"}',
    "a half as a key": b'{"\\ud83d":1}',
    "NaN": b'{"cents":NaN}',
    "infinity": b'{"cents":-Infinity}',
    "more than a double": b'{"cents":1e400}',
    "more digits than Python reads": b"1" * 5_000,
    "nothing": b"",
    "two values": b"{} {}",
    "a byte 0": b'{"customer":"\x00"}',
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("read", [codec.decode, codec.decoder(Order), codec.decoder(dict[str, Any])], ids=str)
def test_what_is_no_json_is_not_readable(read: Any, data: bytes) -> None:
    with pytest.raises(NotReadable):
        read(data)
    assert not codec.readable([b"{}", data])


def test_another_shape_is_not_readable_either() -> None:
    with pytest.raises(NotReadable, match="customer"):
        codec.decoder(Order)(b'{"customer":1}')
    with pytest.raises(NotReadable, match="customer"):
        codec.convert({}, Order)


def test_text_that_is_half_a_character_is_not_readable() -> None:
    with pytest.raises(NotReadable):
        codec.decode('"\ud83d"')
    with pytest.raises(NotReadable):
        codec.text(b"gesch\xfctzt")


ODD = {
    "NaN": ({"cents": math.nan}, r"\['cents'\] is nan"),
    "infinity": ({"a": [1, math.inf]}, r"\['a'\]\[1\] is inf"),
    "Decimal": ({"amount": Decimal("10.50")}, "Decimal"),
    "datetime": ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "datetime"),
    "UUID": ({"id": uuid4()}, "UUID"),
    "bytes": ({"raw": b"x"}, "bytes"),
    "set": ({"tags": {1}}, "set"),
    "tuple": ({"pair": (1, 2)}, "tuple"),
    "number as a key": ({1: "x"}, "key 1"),
    "half a surrogate pair": ({"n": "\ud83d"}, "surrogate"),
    "half a pair as a key": ({"\ud83d": 1}, "key"),
    "an object": (object(), "object"),
}


@pytest.mark.parametrize(("value", "reason"), ODD.values(), ids=ODD)
def test_what_would_not_be_read_back_equal_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(NotWritable, match=reason):
        codec.encode(value)


def test_a_struct_is_read_back_as_what_it_is_or_refused() -> None:
    assert codec.encode(Order("x")) == b'{"customer":"x"}'
    with pytest.raises(NotWritable, match=r"value\.customer holds half of a surrogate pair"):
        codec.encode(Order("\ud83d"))
    with pytest.raises(NotWritable, match=r"got `int` - at `\$\.customer`"):
        codec.encode(Order(5))  # type: ignore[arg-type]


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_the_limit_of_depth_is_the_same_for_reader_and_writer() -> None:
    assert codec.decode(codec.encode(nested(codec.MAX_DEPTH))) == nested(codec.MAX_DEPTH)
    for levels in (codec.MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(NotWritable, match="nested"):
            codec.encode(nested(levels))


def test_brackets_in_a_string_are_not_depth() -> None:
    value = {"text": '[{"\\' * 1_000, "list": [[]] * 1_000}
    assert codec.decode(codec.encode(value)) == value


@given(
    st.recursive(st.text('[]{}"\\\\'), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=30),
    st.integers(0, 70),
)
def test_depth_is_counted_as_a_parser_counts_it(value: Any, levels: int) -> None:
    padded = [*(["["] * codec.MAX_DEPTH), value]  # so many brackets that it has to count
    for _ in range(levels):
        padded = [padded]
    data = msgspec.json.encode(padded)
    if depth(padded) <= codec.MAX_DEPTH:
        assert codec.decode(data) == padded
    else:
        with pytest.raises(NotReadable, match="nested"):
            codec.decode(data)


def depth(value: Any) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize(
    "data", [rb'{"n":"\ud83d"}', rb'{"n":"\ude00 x"}', rb'{"\ud83d":1}', rb'"\ud83d\ud83d\ude00"', rb'"\\\ud83d"']
)
def test_half_a_surrogate_pair_is_named_as_what_it_is(data: bytes) -> None:
    with pytest.raises(NotReadable, match=r"half of a surrogate pair: \\ud"):
        codec.decode(data)
    assert codec.decode(rb'"\\ud83d \ud83d\ude00 \uD83D\uDE00"') == "\\ud83d \N{GRINNING FACE} \N{GRINNING FACE}"


def test_what_was_written_is_read_on_a_deep_call_stack() -> None:
    data = codec.encode(nested(codec.MAX_DEPTH))

    def down(levels: int) -> Any:
        return down(levels - 1) if levels else codec.decode(data)

    frame, here = sys._getframe(), 0
    while frame := frame.f_back:  # type: ignore[assignment]
        here += 1
    assert down(sys.getrecursionlimit() - here - codec.MAX_DEPTH - 20) == nested(codec.MAX_DEPTH)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.decimals() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner) | st.tuples(inner),
)


@given(values)
def test_whatever_is_written_is_read_back_equal(value: Any) -> None:
    try:
        data = codec.encode(value)
    except NotWritable:
        return
    assert codec.decode(data) == value


@given(st.binary() | st.text(st.sampled_from('{}[]",:\\ud83e1.-naNIf ')).map(str.encode))
def test_reading_never_raises_anything_else(data: bytes) -> None:
    try:
        codec.encode(codec.decode(data))
    except NotReadable:
        assert not codec.readable([b"{}", data])
    else:
        assert codec.readable([b"{}", data])
