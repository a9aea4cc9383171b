"""Hand-made histories, short enough to be read in a test."""

from collections.abc import Callable
from typing import Any

import msgspec

from shared.checkers import Anomaly
from shared.history import Action, History, Op, Outcome

INVOKE, OK, FAIL, UNKNOWN = Outcome
WRITE, SEND, DELIVER, EFFECT, READ, FAULT = Action


def op(action: Action, value: str = "e1", outcome: Outcome = OK, process: str = "", **more: Any) -> Op:
    """An operation; its time is its place in the history, see `history`."""
    return Op(0, process or str(action), action, outcome, value, **more)


def at(offset: int, value: str = "", process: str = "reader", outcome: Outcome = OK, **more: Any) -> Op:
    """A delivery from an offset."""
    where: dict[str, Any] = {"topic": "orders", "partition": 0, **more}
    return op(DELIVER, value or f"e{offset}", outcome, process, offset=offset, **where)


def sent(offset: int, value: str = "", outcome: Outcome = OK) -> Op:
    return op(SEND, value or f"e{offset}", outcome, topic="orders", partition=0, offset=offset)


def numbered(key: str, *numbers: int, **more: Any) -> list[Op]:
    """Deliveries of the numbered events of one aggregate."""
    return [op(DELIVER, f"{key}-{number}", key=key, seq=number, **more) for number in numbers]


def history(*ops: Op) -> History:
    return History(msgspec.structs.replace(one, at=number) for number, one in enumerate(ops, 1))


def values(checker: Callable[[History], list[Anomaly]], *ops: Op) -> list[str]:
    """The events that the checker blames, in its order."""
    return [anomaly.value for anomaly in checker(history(*ops))]
