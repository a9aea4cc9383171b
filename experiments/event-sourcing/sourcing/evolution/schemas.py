"""What an event's data must look like, and how strictly a program insists on it.

A weak schema is a tolerant reader (Martin Fowler, "TolerantReader"): it takes what it knows, fills in what is missing
and passes over the rest. That lets producers add fields at will; it also turns a fault of theirs into a default.
A strong schema refuses what it was not told of. Stand it at the door, before the append: what is stored has happened.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from sourcing.errors import SchemaMismatch, UnknownEventType
from sourcing.event import Data, NewEvent, Recorded
from sourcing.repository import Reader


class Schema(Protocol):
    """The shape of each event type's data."""

    def shape(self, stream: str, version: int, type_: str, data: Data) -> Data:
        """The data as this schema has it. Raises UnknownEventType or SchemaMismatch naming the event."""
        ...


class Weak:
    """Takes the fields that it knows, a default for each that is missing, and ignores what is more. Checks no type."""

    def __init__(self, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """`fields`: event type -> field -> its default."""
        self._fields = fields

    def shape(self, stream: str, version: int, type_: str, data: Data) -> Data:
        if type_ not in self._fields:
            raise UnknownEventType(stream, version, type_, "the schema does not have it")
        return {name: data.get(name, default) for name, default in self._fields[type_].items()}


class EventModel(BaseModel):
    """The data of one event type in its current version; the class has the type's name. No coercion, nothing extra."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    schema_version: ClassVar[int] = 1


class Strong:
    """Every field is there, of its type and within its bounds, and there is no other."""

    def __init__(self, models: Iterable[type[EventModel]]) -> None:
        self._models = {model.__name__: model for model in models}

    @property
    def versions(self) -> dict[str, int]:
        """Event type -> its current schema version: what a program writes, and what upcasters must end at."""
        return {name: model.schema_version for name, model in self._models.items()}

    def shape(self, stream: str, version: int, type_: str, data: Data) -> Data:
        if type_ not in self._models:
            raise UnknownEventType(stream, version, type_, "the schema does not have it")
        try:
            return self._models[type_].model_validate(data).model_dump()
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise SchemaMismatch(stream, version, type_, wrong) from error

    def admit(self, stream: str, after: int, events: Sequence[NewEvent]) -> Sequence[NewEvent]:
        """The events, for an append at version `after`. Raises SchemaMismatch for the first that must not be stored."""
        for version, event in enumerate(events, after + 1):
            self.shape(stream, version, event.type, dict(event.data))
            if event.schema_version != (current := self.versions[event.type]):
                problem = f"written as schema version {event.schema_version}, the current one is {current}"
                raise SchemaMismatch(stream, version, event.type, problem)
        return events


def shaped(read: Reader, schema: Schema) -> Reader:
    """The reader, with everything that it reads in the schema's shape."""

    def reader(event: Recorded) -> Iterable[tuple[str, Data]]:
        return [(type_, schema.shape(event.stream, event.version, type_, data)) for type_, data in read(event)]

    return reader
