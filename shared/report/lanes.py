"""One lane per process, in the order in which an event meets them: writers, relays, consumers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.history import Action, Op
from shared.report.attempts import Attempt
from shared.report.words import shortened

ROLES = {Action.WRITE: "writes", Action.SEND: "sends", Action.DELIVER: "receives", Action.EFFECT: "acts"}
RANKS = {Action.WRITE: 0, Action.SEND: 2, Action.DELIVER: 4, Action.EFFECT: 6}
DATABASE, BROKER = (
    re.compile(r"postgres|sql|database|\bdb\b", re.I),
    re.compile(r"kafka|nats|rabbit|broker|pulsar", re.I),
)
LEFT, RIGHT = 136, 196  # px beside the outer lanes, for the time axis and for labels
LETTER = 7.8  # px of a lane's name
APART, WIDEST, DRAWING = 132, 420, 1040  # px between lanes at least and at most; the width that a page offers


@dataclass(frozen=True, slots=True)
class Lane:
    """One process: its name in full and as it fits, what it does, and where its line runs (px)."""

    process: str
    label: str
    role: str
    x: float


def lanes(attempts: Sequence[Attempt], faults: Sequence[Op], others: Iterable[str] = ()) -> tuple[Lane, ...]:
    """Lanes from left to right. Servers that only faults name lie where their data passes."""
    roles: dict[str, set[Action]] = {}
    for attempt in attempts:
        roles.setdefault(attempt.op.process, set()).add(attempt.op.action)
    for process in (*(fault.process for fault in faults), *others):
        roles.setdefault(process, set())
    order = sorted(roles, key=lambda process: (_rank(process, roles[process]), process))
    apart = min(max((DRAWING - LEFT - RIGHT) / max(len(order) - 1, 1), APART), WIDEST)
    return tuple(
        Lane(process, shortened(process, int(apart / LETTER)), _role(roles[process]), round(LEFT + apart * place, 1))
        for place, process in enumerate(order)
    )


def _rank(process: str, actions: set[Action]) -> int:
    if actions:
        return min(RANKS[action] for action in actions)
    return 1 if DATABASE.search(process) else 3 if BROKER.search(process) else 7


def _role(actions: set[Action]) -> str:
    return ", ".join(ROLES[action] for action in ROLES if action in actions) or "hit by a fault"
