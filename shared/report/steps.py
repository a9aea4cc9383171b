"""What the player of a diagram says at each of its steps: an act, or a fault, in one line."""

from collections.abc import Sequence

from shared.history import Action, Op, Outcome
from shared.record import Finding
from shared.report.attempts import Attempt
from shared.report.sentences import befell, named
from shared.report.words import milliseconds

# For each action: done, and not done.
WORDS = {
    Action.WRITE: ("wrote", "write"),
    Action.SEND: ("sent", "send"),
    Action.DELIVER: ("received", "receive"),
    Action.EFFECT: ("acted on", "act on"),
}
ENDS = {
    Outcome.OK: "{process} {did} {event}",
    Outcome.FAIL: "{process} failed to {do} {event}: it certainly did not happen",
    Outcome.UNKNOWN: "{process} tried to {do} {event}, and could not tell whether it did",
    Outcome.INVOKE: "{process} began to {do} {event}, and never ended",
}


def act(attempt: Attempt, number: int, zero: int, findings: Sequence[Finding]) -> str:
    """An attempt, by the number that its event has in the diagram, with what the checkers found at it."""
    op = attempt.op
    did, do = WORDS[op.action]
    event = named(f"{number:,}", op.key)
    said = ENDS[op.outcome].format(process=op.process, did=did, do=do, event=event)
    odd = "".join(f"; {finding.kind}: {finding.detail}" for finding in findings)
    return f"{milliseconds(attempt.end - zero)}: {said}{odd}"


def hit(fault: Op, zero: int) -> str:
    return f"{milliseconds(fault.at - zero)}: {befell(fault)}"
