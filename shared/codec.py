"""What can be read and what can be written, the same for every part of every lab.

JSON is here what RFC 8259 and I-JSON (RFC 7493) agree on: UTF-8, no NaN and no infinity, no number that a double cannot
hold, no half of a surrogate pair, and at most MAX_DEPTH levels deep. What `encode` writes, every `decoder` reads back
equal, on any call stack; what one decoder refuses, all refuse, by NotReadable alone. So a service that catches
NotReadable outlives every message: msgspec alone raises UnicodeDecodeError for a Latin-1 byte and RecursionError for a
million brackets, and writes NaN as null.
"""

import math
import re
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import methodcaller
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from shared.errors import NotReadable, NotWritable

T = TypeVar("T")
Bytes = bytes | bytearray | memoryview
# Python's parsers spend a level of the call stack (1,000 by default) on each level of the data.
MAX_DEPTH = 64
MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)
# An opening bracket is a level more, a closing one is a level less: a signed byte of -1.
_LEVELS, _NO_BRACKETS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff"), bytes(set(range(256)) - set(b"[{]}"))
_PAIR = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_ARRAYS, _OBJECTS = methodcaller("count", b"["), methodcaller("count", b"{")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@overload
def decoder() -> Callable[[Bytes | str], Any]: ...
@overload
def decoder(type_: type[T]) -> Callable[[Bytes | str], T]: ...
@overload
def decoder(type_: Any) -> Callable[[Bytes | str], Any]: ...
def decoder(type_: Any = Any) -> Callable[[Bytes | str], Any]:
    """A function that reads JSON as a value of the type (what msgspec calls one). It raises NotReadable."""
    parse = msgspec.json.Decoder(type_).decode
    sees_all = type_ in (Any, dict[str, Any])

    def decode(data: Bytes | str) -> Any:
        try:
            raw = data if type(data) is bytes else data.encode() if isinstance(data, str) else bytes(data)
            if len(raw) > 2 * MAX_DEPTH:  # what is shorter cannot be as deep
                check_depth(raw)
            if not sees_all:
                _decode(raw)  # or a field that the type does not have would be passed over, whatever it holds
            return parse(raw)
        except MALFORMED as error:
            raise NotReadable(_reason(data, error)) from error

    return decode


decode = decoder()


def readable(data: Sequence[bytes]) -> bool:
    """Whether `decode` reads each of them, for half of its cost."""
    try:
        if max(map(_ARRAYS, data), default=0) + max(map(_OBJECTS, data), default=0) > MAX_DEPTH:
            deque(map(check_depth, data), maxlen=0)
        deque(map(_decode, data), maxlen=0)
    except (*MALFORMED, NotReadable):
        return False
    return True


def encode(value: Any) -> bytes:
    """The value as compact JSON. Raises NotWritable, naming the place, for what would not be read back equal."""
    try:
        data = _encode(value)
        check_depth(data)
        # A Struct is read back as what it is; its fields may be tuples, enums, other Structs.
        same = (msgspec.json.decode(data, type=type(value)) if isinstance(value, Struct) else _decode(data)) == value
    except (*MALFORMED, NotReadable, TypeError, ValueError) as error:
        raise NotWritable(_oddity(value, "the value", MAX_DEPTH) or str(error)) from error
    if not same:
        raise NotWritable(_oddity(value, "the value", MAX_DEPTH) or "it would not be read back equal")
    return data


def convert(value: Any, type_: type[T]) -> T:
    """A decoded value as a value of the type. Raises NotReadable."""
    try:
        return msgspec.convert(value, type_)
    except MALFORMED as error:
        raise NotReadable(str(error)) from error


def text(data: bytes) -> str:
    """A key or a header. Raises NotReadable where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeError as error:
        raise NotReadable(str(error)) from error


def check_depth(data: bytes) -> None:
    """Raise NotReadable where JSON is nested more than MAX_DEPTH deep. Most data have fewer brackets in all."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    outside = b"".join(_unescaped(data).replace(rb"\"", b"").split(b'"')[::2])  # of the strings
    if max(accumulate(array("b", outside.translate(_LEVELS, _NO_BRACKETS)), initial=0)) > MAX_DEPTH:
        raise NotReadable(f"it is nested more than {MAX_DEPTH} deep")


def _unescaped(data: bytes) -> bytes:
    """Without backslashes that stand for themselves: what is left of them says something about what follows."""
    return data.replace(rb"\\", b" ") if b"\\" in data else data


def _reason(data: Bytes | str, error: Exception) -> str:
    """Why it cannot be read. A parser that looks for the other half says that it has come to the end too soon."""
    raw = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
    half = _HALF.search(_PAIR.sub(b" ", _unescaped(raw)))
    return f"it holds half of a surrogate pair: {half[0].decode()}" if half else str(error)


def _oddity(value: Any, place: str, levels: int) -> str:
    """What in the value JSON cannot say, and where; empty when there is nothing."""
    match value:
        case str() if any("\ud800" <= character <= "\udfff" for character in value):
            return f"{place} holds half of a surrogate pair"
        case float() if not math.isfinite(value):
            return f"{place} is {value}, which JSON has no number for"
        case None | bool() | int() | float() | str():
            return ""
        case list() | dict() if levels == 0:
            return f"it is nested more than {MAX_DEPTH} deep"
        case list():
            found = (_oddity(inner, f"{place}[{index}]", levels - 1) for index, inner in enumerate(value))
        case dict() if strange := [key for key in value if not isinstance(key, str) or _oddity(key, "", 0)]:
            return f"{place} has the key {strange[0]!r}, and JSON's keys are text"
        case dict():
            found = (_oddity(inner, f"{place}[{key!r}]", levels - 1) for key, inner in value.items())
        case Struct():
            found = (_oddity(getattr(value, name), f"{place}.{name}", levels - 1) for name in value.__struct_fields__)
        case _:
            return f"{place} is a {type(value).__name__}, which JSON has no type for"
    return next(filter(None, found), "")
