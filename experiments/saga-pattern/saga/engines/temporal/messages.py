"""What goes into a saga's workflow and comes out of it, and how it is written: JSON, checked when it is read."""

from enum import StrEnum
from functools import cache
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
)

from saga.order import Action, Order
from saga.reading import reader
from shared import codec

_reader = cache(reader)  # of each type one


class Phase(StrEnum):
    """Where a saga stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    PARKED = "parked"  # it waits for an operator
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class Limits(msgspec.Struct, frozen=True):
    """How long a saga goes on trying. Compensation has no deadline: it takes as long as it takes."""

    deadline: float = 30.0  # seconds for all steps together
    attempts: int = 5  # of a step; after them nobody knows whether it was done
    undo_attempts: int = 10  # of a compensation; after them an operator is asked
    attempt: float = 10.0  # seconds for one attempt: a worker that lives, and beats, may hang all the same
    heartbeat: float = 2.0  # seconds without a sign of life: a dead worker is found out before its attempt's time is up


USUAL = Limits()


class Begin(msgspec.Struct, frozen=True):
    """The input of the workflow. One object, since fields with a default can be added to it later."""

    order: Order
    limits: Limits = USUAL


class Progress(msgspec.Struct, frozen=True):
    """The state of a saga as its query tells it, and its result."""

    status: Phase
    doing: Action | None = None  # what a service is being asked for
    undo: tuple[Action, ...] = ()  # what a compensation would have to do, in its order
    reason: str = ""  # of the compensation, or of the wait for an operator


class StructConverter(EncodingPayloadConverter):
    """JSON by `shared.codec`. What does not have the shape of its type is an error here, not somewhere in the saga."""

    @property
    def encoding(self) -> str:
        """The name that other SDKs and the web UI know JSON by."""
        return "json/plain"

    def to_payload(self, value: object) -> Payload:
        return Payload(metadata={"encoding": self.encoding.encode()}, data=codec.encode(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return _reader(type_hint or Any)(payload.data)


class Converter(CompositePayloadConverter):
    """Temporal's own converters (nothing, bytes, protobuf), with ours for JSON."""

    def __init__(self) -> None:
        usual = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(*(StructConverter() if isinstance(one, JSONPlainPayloadConverter) else one for one in usual))


CONVERTER = DataConverter(payload_converter_class=Converter)
