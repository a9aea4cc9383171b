"""The promise that every event ever written stays readable, held by golden events: one of each type and version.

A golden event is the bytes that a program once stored, and what they mean today. It is written once and never edited;
a new version of a type gets a file of its own. The check that the pipeline runs: today's program reads all of them as
they are meant, and what it writes is, byte for byte, the newest of its type. A test in which a program reads back what
it wrote itself shows none of that: writer and reader change together, and what is stored does not.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shared import codec
from shared.errors import ConfigurationError, NotReadable
from sourcing.errors import UnreadableEvent
from sourcing.event import Data, NewEvent, Recorded, encode
from sourcing.repository import Reader
from sourcing.upcasting import Shape, Upcasters

STREAM = "golden-1"  # what errors name


class Golden(msgspec.Struct, frozen=True):
    """One event as it was stored, and what it stands for."""

    type: str
    schema_version: int
    data: str  # the bytes as text: nothing is lost, and a review can read them
    reads_as: list[tuple[str, Data]]

    @property
    def shape(self) -> Shape:
        return self.type, self.schema_version

    @property
    def name(self) -> str:
        return name_of(self.shape)

    @property
    def recorded(self) -> Recorded:
        """As a store would return it."""
        data, never = self.data.encode(), datetime(2026, 1, 1, tzinfo=UTC)
        return Recorded(STREAM, 1, self.type, self.schema_version, data, b"{}", "", 0, 1, never)


_golden = codec.decoder(Golden)


def name_of(shape: Shape) -> str:
    """The file's name without .json."""
    return f"{shape[0]}.v{shape[1]}"


def load(folder: Path) -> tuple[Golden, ...]:
    """Every golden event of a folder. Raises ConfigurationError for a file that is none, or under a wrong name."""
    return tuple(_load(path) for path in sorted(folder.glob("*.json")))


def broken(goldens: Iterable[Golden], upcasters: Upcasters, read: Reader, written: Iterable[NewEvent]) -> list[str]:
    """Every breach of the contract, in a sentence each; empty when it holds.

    `read` is the program's reader, `written` at least one event of every type that it writes, made by its own commands.
    """
    by_shape = {golden.shape: golden for golden in goldens}
    missing = [f"{name_of(shape)}: no golden event" for shape in sorted(upcasters.shapes - by_shape.keys())]
    return [*missing, *_misread(by_shape.values(), read), *_changed(by_shape, upcasters.current, list(written))]


def keep(folder: Path, events: Iterable[NewEvent], read: Reader) -> list[Path]:
    """Make these events golden where their type and version is not yet. Returns the files written; none is changed."""
    made = []
    for event in events:
        data, path = encode(STREAM, event)[0], folder / f"{name_of((event.type, event.schema_version))}.json"
        if not path.exists():
            golden = Golden(event.type, event.schema_version, data.decode(), [])
            golden = msgspec.structs.replace(golden, reads_as=list(read(golden.recorded)))
            path.write_bytes(msgspec.json.format(msgspec.json.encode(golden)) + b"\n")
            made.append(path)
    return made


def _load(path: Path) -> Golden:
    try:
        golden = _golden(path.read_bytes())
    except (OSError, NotReadable) as error:
        raise ConfigurationError(f"{path} is not a golden event: {error}") from error
    if golden.name != path.stem:
        raise ConfigurationError(f"{path} holds {golden.name}")
    return golden


def _misread(goldens: Iterable[Golden], read: Reader) -> Iterator[str]:
    for golden in goldens:
        try:
            found = [(type_, data) for type_, data in read(golden.recorded)]
        except UnreadableEvent as error:
            yield f"{golden.name}: cannot be read: {error.problem}"
        else:
            if found != golden.reads_as:
                yield f"{golden.name}: reads as {found}, and means {golden.reads_as}"


def _changed(goldens: Mapping[Shape, Golden], current: Mapping[str, int], written: list[NewEvent]) -> Iterator[str]:
    for type_ in sorted(current.keys() - {event.type for event in written}):
        yield f"{name_of((type_, current[type_]))}: the program's commands did not write one"
    for event in written:
        shape = event.type, event.schema_version
        if current.get(event.type) != event.schema_version:
            yield f"{name_of(shape)}: written, and the current version is {current.get(event.type, 'none')}"
        elif shape in goldens and (data := encode(STREAM, event)[0].decode()) != goldens[shape].data:
            yield f"{name_of(shape)}: written as {data}, the contract says {goldens[shape].data}"
