"""WRONG: values and old events in the hands of bare code, which says nothing of where it was, or nothing at all.

Compare `Aggregate.record` and `Repository.load`, which name event, field and step.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from sourcing.aggregate import Aggregate
from sourcing.event import NewEvent


def encode(value: Any) -> bytes:
    """What a plain encoder makes of it: money becomes text, NaN null."""
    return msgspec.json.encode(value)


def fold(aggregate: Aggregate, step: Callable[[Any], Any], event: NewEvent) -> None:
    """An event of version 2 through the step, one of version 3 as it is; then `apply`."""
    data = dict(event.data)
    aggregate.apply(event.type, step(data) if event.schema_version == 2 else data)
