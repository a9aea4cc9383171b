"""Values that JSON has no word for: what a plain encoder makes of them on their way into an event, and `record`."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from sourcing.aggregate import Aggregate
from sourcing.errors import UnwritableEvent
from sourcing.event import Data

VALUES: dict[str, Any] = {
    "Decimal": Decimal("10.50"),
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "tuple": ("tea", 2),
    "number as a key": {1: "tea"},
    "NaN": math.nan,
    "infinity": math.inf,
    "half a surrogate pair": "\ud83d",
}


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


def changed(value: Any) -> bool:
    """Whether a plain encoder writes it as something else, silently, or writes what cannot be read."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) != value)
    except (msgspec.MsgspecError, UnicodeError):
        return True


def refused(value: Any) -> bool:
    """Whether `record` refuses it by name, and nothing has happened then."""
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
