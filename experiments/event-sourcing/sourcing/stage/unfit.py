"""What does not fit: values that JSON has no word for, and events that the code of a program cannot apply."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from shared.experiment import Run
from shared.postgres import connect
from sourcing.aggregate import Aggregate
from sourcing.errors import MISFITS, UnreadableEvent, UnwritableEvent
from sourcing.event import Data, NewEvent
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.evolved import HOME_CURRENCY, EvolvedOrder
from sourcing.upcasting import BrokenChain, Upcasters

VALUES: dict[str, Any] = {
    "Decimal": Decimal("10.50"),
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "tuple": ("tea", 2),
    "number as a key": {1: "tea"},
    "NaN": math.nan,
    "infinity": math.inf,
    "half a surrogate pair": "\ud83d",
}
Upcast = Callable[[Any], Any]  # of an upcaster: from the data of one version to those of the next
LINE = {"product": "tea", "quantity": 2, "cents": 500}


class Noted(Aggregate):
    """Holds whatever it is given."""

    category: ClassVar[str] = "noted"

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.what: list[Any] = []

    def apply(self, type_: str, data: Data) -> None:
        self.what.append(data["what"])

    def state(self) -> Data:
        return {"what": self.what}

    def restore(self, state: Data) -> None:
        self.what = state["what"]


def changed(encode: Callable[[Any], bytes], value: Any) -> bool:
    """Whether the encoder writes it as something else, silently, or writes what cannot be read."""
    try:
        return bool(msgspec.json.decode(encode(value)) != value)
    except (msgspec.MsgspecError, UnicodeError):
        return True


def refused(value: Any) -> bool:
    """Whether `Aggregate.record` refuses it by name, and nothing has happened then."""
    noted = Noted("1")
    try:
        noted.record("Noted", what=value)
    except UnwritableEvent as error:
        return "['what']" in str(error) and not (noted.what or noted.uncommitted)
    return False


def keeps_its_own() -> bool:
    """Whether what a caller does afterwards to a list that was recorded stays out of event and state."""
    noted, lines = Noted("1"), ["tea"]
    noted.record("Noted", what=lines)
    lines.append("never ordered")
    return noted.what == [["tea"]] and noted.uncommitted[0].data == {"what": ["tea"]}


@contextmanager
def open_store(run: Run) -> Iterator[PostgresStore]:
    create(conninfo := run.schema())
    with connect(conninfo) as connection:
        yield PostgresStore(connection)


def forgets(data: Any) -> None:
    """Changes the data in place, as one does with a dict, and does not return them."""
    data["currency"] = HOME_CURRENCY


def in_cents(data: Any) -> Any:
    """Takes for granted what the other old events had."""
    return {**data, "cents": round(data["price"] * 100), "currency": HOME_CURRENCY}


# Steps from version 2 to 3, and their events: it returns nothing, it misses a field, `apply` misses one.
UNFIT: tuple[tuple[Upcast, NewEvent], ...] = (
    (forgets, NewEvent("LineAdded", LINE, 2)),
    (in_cents, NewEvent("LineAdded", LINE, 2)),
    (in_cents, NewEvent("LineAdded", LINE, 3)),
)


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


def load(orders: Repository[EvolvedOrder], number: int, event: NewEvent) -> tuple[str, str]:
    """Store the event as the first one of a stream, and load it; returns the stream, and what was said."""
    stream = f"order-unfit-{number}"
    orders.store.append(stream, [event])
    try:
        orders.load(f"unfit-{number}")
    except UnreadableEvent as error:
        return stream, str(error)
    return stream, ""


def said_by(fold: Callable[[], object]) -> str:
    try:
        fold()
    except MISFITS as error:
        return repr(error)
    return ""


def upcasters(step: Upcast) -> Upcasters:
    """With that step from version 2 to 3."""
    steps = Upcasters({"LineAdded": 3})
    steps.step("LineAdded", 1)(dict)
    steps.step("LineAdded", 2)(step)
    return steps


def refused_at_start(step: Upcast) -> str:
    """What `check` says of the step before any event is read; nothing when it has nothing against it."""
    try:
        upcasters(step).check()
    except BrokenChain as error:
        return str(error)
    return ""
