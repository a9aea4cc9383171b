"""Events that a program's own code cannot apply, one for each way, and what is said of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sourcing.errors import MISFITS, UnreadableEvent
from sourcing.event import NewEvent
from sourcing.repository import Repository
from sourcing.shop.evolved import HOME_CURRENCY, EvolvedOrder
from sourcing.store import EventStore
from sourcing.upcasting import BrokenChain, Upcasters

Step = Callable[[Any], Any]
LINE = {"product": "tea", "quantity": 2, "cents": 500}


def forgets(data: Any) -> None:
    """Changes the data in place, as one does with a dict, and does not return them."""
    data["currency"] = HOME_CURRENCY


def in_cents(data: Any) -> Any:
    """Takes for granted what the other old events had."""
    return {**data, "cents": round(data["price"] * 100), "currency": HOME_CURRENCY}


# What is wrong -> the step from version 2 to 3, and the event.
WAYS: dict[str, tuple[Step, NewEvent]] = {
    "a step that returns nothing": (forgets, NewEvent("LineAdded", LINE, 2)),
    "a step that misses a field": (in_cents, NewEvent("LineAdded", LINE, 2)),
    "an apply that misses a field": (in_cents, NewEvent("LineAdded", LINE, 3)),
}


@dataclass(frozen=True)
class Said:
    """Of one event: what comes out of a load, and what comes out of the same code without the Repository."""

    stream: str
    named: str
    unnamed: str

    @property
    def names_all(self) -> bool:
        """Stream, version and type, and by which code it failed."""
        where = f"event 1 of stream {self.stream!r}, type 'LineAdded'"
        return where in self.named and ("the step from 'LineAdded' v2" in self.named or "EvolvedOrder" in self.named)


def meet(store: EventStore, number: int, step: Step, event: NewEvent) -> Said:
    """Store the event as the first one of its stream, and load it."""
    stream = f"order-unfit-{number}"
    store.append(stream, [event])
    return Said(stream, _load(store, f"unfit-{number}", _upcasters(step)), _fold(step, event))


def refused_at_start(step: Step) -> str:
    """What `check` says of the step before any event is read; nothing when it has nothing against it."""
    try:
        _upcasters(step).check()
    except BrokenChain as error:
        return str(error)
    return ""


def _upcasters(step: Step) -> Upcasters:
    steps = Upcasters({"LineAdded": 3})
    steps.step("LineAdded", 1)(dict)
    steps.step("LineAdded", 2)(step)
    return steps


def _load(store: EventStore, ident: str, steps: Upcasters) -> str:
    try:
        Repository(store, EvolvedOrder, steps).load(ident)
    except UnreadableEvent as error:
        return str(error)
    return ""


def _fold(step: Step, event: NewEvent) -> str:
    data = dict(event.data)
    try:
        EvolvedOrder("1").apply(event.type, step(data) if event.schema_version == 2 else data)
    except MISFITS as error:
        return repr(error)
    return ""
