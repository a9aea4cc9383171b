"""One attempt as a mark: its shape, its label, and the details that a reader asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.checkers import Kind
from shared.history import Action, History, Op, Outcome
from shared.record import Finding
from shared.report.attempts import Attempt
from shared.report.words import milliseconds, shortened

VERBS = {Action.WRITE: "write", Action.SEND: "send", Action.DELIVER: "delivery", Action.EFFECT: "effect"}
ENDS = {
    Outcome.INVOKE: "never ended: the process died or was cut off",
    Outcome.OK: "ok",
    Outcome.FAIL: "failed: it certainly did not happen",
    Outcome.UNKNOWN: "unknown: its caller could not tell",
}


class State(StrEnum):
    """How a mark is filled."""

    DONE = "done"
    OPEN = "open"  # no end was recorded
    UNKNOWN = "unknown"
    FAILED = "failed"


STATES = {
    Outcome.OK: State.DONE,
    Outcome.INVOKE: State.OPEN,
    Outcome.UNKNOWN: State.UNKNOWN,
    Outcome.FAIL: State.FAILED,
}

LOST = Kind.LOST.value

Details = tuple[tuple[str, str], ...]  # (name, text) in reading order


@dataclass(frozen=True, slots=True)
class Mark:
    """A dot at (x, y) px with a stem from `start`, where its invoke was; `at` ns in the diagram, `line` in words.

    `odd`: an anomaly was found here; `anomaly` is its label, empty where the diagram says it otherwise (lost events).
    """

    lane: int
    x: float
    y: float
    start: float
    action: str
    state: State
    number: int
    label: str
    odd: bool
    anomaly: str
    details: Details
    at: int
    line: str

    @property
    def title(self) -> str:
        return "; ".join(f"{name} {text}" for name, text in self.details)


def anomaly_label(findings: Sequence[Finding]) -> str:
    """The kinds, as few words as fit beside a lane: "duplicate delivery +1". A lost event's arrow says so itself."""
    kinds = list(dict.fromkeys(finding.kind for finding in findings if finding.kind != LOST))
    if not kinds:
        return ""
    return shortened(kinds[0], 22) + (f" +{len(kinds) - 1}" if len(kinds) > 1 else "")


def details(attempt: Attempt, number: int, zero: int, findings: Sequence[Finding], history: History) -> Details:
    """Everything that the history knows of an attempt, with times in ms since `zero`."""
    op = attempt.op
    rows = [
        ("event", f"{number} ({VERBS[op.action]} by {op.process})"),
        ("id", op.value),
        ("key", f"{op.key}, number {op.seq}" if op.seq else op.key),
        ("record", _record(op)),
        ("outcome", ENDS[op.outcome]),
        ("at", _when(attempt, zero)),
        ("group", op.group),
        ("note", op.note),
        ("source of truth", _settled(op, history)),
        *((finding.kind, finding.detail) for finding in findings),
    ]
    return tuple((name, shortened(text, 300)) for name, text in rows if text)


def _record(op: Op) -> str:
    place = f"partition {op.partition}" if op.partition >= 0 else ""
    offset = f"offset {op.offset}" if op.offset >= 0 else ""
    return ", ".join(filter(None, [op.topic, place, offset]))


def _when(attempt: Attempt, zero: int) -> str:
    end = milliseconds(attempt.end - zero)
    return f"{milliseconds(attempt.start - zero)} to {end}" if attempt.start < attempt.end else end


def _settled(op: Op, history: History) -> str:
    if not history.settled or op.action is not Action.WRITE:
        return ""
    return "holds its row" if op.value in history.found else "has no row of it"
