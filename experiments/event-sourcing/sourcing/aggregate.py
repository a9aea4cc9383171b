"""The aggregate: decides by its state, records what it decided, and is nothing but the fold of its events.

Plain on purpose. A command is a method: it checks the invariants and calls `record`. `apply` changes the state and
checks nothing, since what it is given has happened. The same `apply` serves the command and the replay.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from shared import codec
from shared.errors import LabError, NotWritable
from sourcing.errors import UnwritableEvent
from sourcing.event import NO_METADATA, Data, Metadata, NewEvent


class InvariantViolated(LabError):
    """A command that the aggregate refuses; nothing is recorded."""


class NotHandled(LookupError):
    """`apply` was given a type that the aggregate does not know."""


class Aggregate(ABC):
    """A consistency boundary: one stream, changed by one command at a time. `version` is that of its last event."""

    category: ClassVar[str]  # what its streams' names begin with
    schemas: ClassVar[Mapping[str, int]] = {}  # event type -> schema version written today, where that is not 1
    state_version: ClassVar[int] = 1  # of `state()`: a snapshot of another one is ignored

    def __init__(self, ident: str) -> None:
        self.id = ident
        self.version = 0
        self.uncommitted: list[NewEvent] = []
        self.because: Metadata = NO_METADATA  # who and why, on all that is recorded from now on

    @property
    def stream(self) -> str:
        return f"{self.category}-{self.id}"

    def record(self, type_: str, **data: Any) -> None:
        """It has happened: apply it, and keep it for the repository to append.

        What is recorded is what will be loaded: `apply` gets the data as they are read back, the event a copy of
        its own, which nobody changes. Where JSON has no such value (a Decimal, a datetime, a tuple, NaN) nothing
        happens, and UnwritableEvent names the field: it is for the command to say as what it is kept.
        """
        try:
            written = codec.encode(data)
        except NotWritable as error:
            raise UnwritableEvent(self.stream, type_, str(error)) from error
        self.apply(type_, codec.decode(written))
        self.uncommitted.append(NewEvent(type_, codec.decode(written), self.schemas.get(type_, 1), self.because))

    @abstractmethod
    def apply(self, type_: str, data: Data) -> None:
        """Change the state by one event in its current schema. Never refuses; raises NotHandled on an unknown type."""

    @abstractmethod
    def state(self) -> Data:
        """All of the state as JSON, for a snapshot."""

    @abstractmethod
    def restore(self, state: Data) -> None:
        """The opposite of `state`."""
