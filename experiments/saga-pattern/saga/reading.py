"""What comes in from elsewhere: read by `shared.codec`, and refused where the services' databases could not keep it."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from shared import codec
from shared.codec import Bytes
from shared.errors import NotReadable, NotWritable

T = TypeVar("T")


def reader(type_: type[T]) -> Callable[[Bytes | str], T]:
    """A function that reads JSON as a value of the type. It raises NotReadable, also for a text that has a NUL."""
    read = codec.decoder(type_)

    def checked(data: Bytes | str) -> T:
        value = read(data)
        storable(*_texts(msgspec.to_builtins(value)))
        return value

    return checked


def storable(*texts: str) -> None:
    """Raise NotReadable for what would fail later, in the statement that stores it: half a character, or a NUL.

    The latter is valid JSON, and no text to Postgres (its documentation, "Character Types").
    """
    try:
        codec.encode([*texts])
    except NotWritable as error:
        raise NotReadable(str(error)) from error
    for text in texts:
        if "\0" in text:
            raise NotReadable(f"a text in it has a NUL: {text!r}")


def without_nul(text: str) -> str:
    """The text as Postgres takes it, for a list that somebody reads."""
    return text.replace("\0", "?")


def _texts(value: Any) -> Iterator[str]:
    """Every text in it, keys included."""
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield from (*_texts(name), *_texts(inner))
        case list() | tuple():
            for inner in value:
                yield from _texts(inner)
