"""An anomaly in plain words: which event, what became of it, and between which acts or at which fault."""

import re
from collections.abc import Callable

from shared.checkers import Kind
from shared.history import Action, Op, Outcome
from shared.record import Finding
from shared.report.past import Past
from shared.report.words import lasting, listed, milliseconds, shortened

UUID = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{8}([0-9a-f]{4})")
SECOND = 1_000_000_000  # ns
# What became of the event, as far as the finding itself knows.
WHAT: dict[str, str] = {
    Kind.LOST: "was written by {process} and never delivered",
    Kind.DUPLICATE_DELIVERY: "was delivered to {process} again",
    Kind.DUPLICATE_EFFECT: "took effect in {process} again",
    Kind.REORDERED: "was delivered to {process} too late: {detail}",
    Kind.SKIPPED: "was delivered to {process}, which had gone {detail}",
    Kind.BACKWARDS: "was delivered to {process}, which had gone {detail}",
    Kind.ABORTED_READ: "was delivered to {process}, and its write certainly failed",
    Kind.PHANTOM: "was delivered to {process}, {detail}",
}
WRITES = {
    Outcome.INVOKE: "its write by {process} never ended",
    Outcome.UNKNOWN: "nobody knows how its write by {process} ended",
    Outcome.OK: "its write by {process} was acknowledged",
    Outcome.FAIL: "its write by {process} failed",
}
SENDS = {
    Outcome.INVOKE: ": its send by {process} never ended",
    Outcome.UNKNOWN: ": nobody knows whether its send by {process} arrived",
    Outcome.OK: ", though {process} had sent it",
    Outcome.FAIL: ": its send by {process} failed",
}
KILLED = re.compile(r"SIGKILL(?: at)? (.+)")
PLACE = re.compile(r"(?:after|before|between|in|while|on|at)\b")


def sentence(finding: Finding, past: Past | None = None) -> str:
    """The finding as one sentence; without a history only what the finding itself knows."""
    detail = finding.detail.removeprefix("delivered, ")
    detail = f"and {detail}" if finding.kind == Kind.PHANTOM and not detail.startswith("but ") else detail
    what = WHAT.get(finding.kind, "({kind}): {detail}").format(
        process=finding.process, detail=detail, kind=finding.kind
    )
    window = WINDOWS.get(finding.kind, _no_window)(finding, past) if past else ""
    return f"E{named(finding.value, finding.key)[1:]} {what}{window}."


def named(value: str, key: str = "") -> str:
    """An event as a sentence names it."""
    short = UUID.sub(r"\1…\2", shortened(value, 40))
    return f"event {short}" + (f" of {key}" if key else "")


def befell(fault: Op) -> str:
    """What a fault did, to whom, and for how long."""
    note = fault.note.strip()
    long = f" for {apart(fault.until - fault.at)}" if fault.until > fault.at else ""
    if note == "SIGKILL, restart":
        return f"{fault.process} was killed" + (f" and down{long}" if long else " and started again")
    if found := KILLED.fullmatch(note):
        window = found[1].replace("-", " ")
        return f"{fault.process} was killed {window if PLACE.match(window) else f'({window})'}"
    done = {"SIGKILL": "killed", "SIGSTOP": "paused", "pause": "paused", "cut": "cut off"}.get(note, "")
    if not done and note.startswith("slow by "):
        done = note
    return f"{fault.process} was {done or f'hit by a fault ({note})'}{long}"


def apart(nanoseconds: int) -> str:
    """A stretch of time as "3.4 ms" or "2.1 s"."""
    return lasting(nanoseconds / SECOND) if nanoseconds >= SECOND else milliseconds(nanoseconds)


def _no_window(finding: Finding, past: Past) -> str:
    return ""


def _lost(finding: Finding, past: Past) -> str:
    traces = past.traces.get(finding.value)
    if not traces:
        return ""
    last = traces[-1]
    sent = SENDS[last.outcome].format(process=last.process) if last.action is Action.SEND else ""
    return sent + (_next_fault(past, last.at) or _passed_by(past, last.at))


def _next_fault(past: Past, at: int) -> str:
    fault = past.fault_after(at)
    if not fault:
        return ""
    return f"; {apart(fault.at - at)} later {befell(fault)}" if fault.at > at else f"; at that time {befell(fault)}"


def _passed_by(past: Past, at: int) -> str:
    """No fault followed: the reader went on from one event to the next, over the one that was lost."""
    after = past.after(at, _delivered)
    if not after:
        return "; nothing was delivered after it"
    before = past.before(at, lambda op: _delivered(op) and op.process == after.process)
    start = f"from {named(before.value, before.key)} " if before else ""
    return f"; meanwhile {after.process} went on {start}to {named(after.value, after.key)}"


def _delivered(op: Op) -> bool:
    return op.action is Action.DELIVER and op.outcome is Outcome.OK


def _delivered_again(finding: Finding, past: Past) -> str:
    this = past.found(finding)
    before = this and past.before(this.at, lambda op: _delivered(op) and _same(op, this) and op.reader == this.reader)
    if not this or not before:
        return ""
    gap = f", {apart(this.at - before.at)} after it had come to {before.process}"
    return gap + _senders(past, this) + (_between(past, before, this) or _hit_before(past, before))


def _senders(past: Past, this: Op) -> str:
    sends = [one for one in past.tried(this.value, Action.SEND) if one.start <= this.at]
    by = listed(list(dict.fromkeys(one.op.process for one in sends)))
    return f"; it had been sent {len(sends)} times, by {by}" if len(sends) > 1 else ""


def _hit_before(past: Past, first: Op) -> str:
    """A fault that came after the event's write, and before the first of two deliveries."""
    fault = past.fault_within(past.traces[first.value][0].at, first.at)
    return f"; {apart(max(first.at - fault.at, 0))} before the first of the two {befell(fault)}" if fault else ""


def _effect_again(finding: Finding, past: Past) -> str:
    this = past.found(finding)
    before = this and past.before(this.at, lambda op: _effect(op) and _same(op, this) and op.group == this.group)
    if not this or not before:
        return ""
    return f", {apart(this.at - before.at)} after the effect in {before.process}{_between(past, before, this)}"


def _effect(op: Op) -> bool:
    return op.action is Action.EFFECT and op.outcome is Outcome.OK


def _same(op: Op, other: Op) -> bool:
    return op.value == other.value


def _reordered(finding: Finding, past: Past) -> str:
    this = past.found(finding)
    if not this:
        return ""
    mine = (this.reader, this.key)
    sooner = past.before(this.at, lambda op: _delivered(op) and (op.reader, op.key) == mine and op.seq > this.seq)
    if not sooner:
        return ""
    gap = f"; {named(sooner.value)}, number {sooner.seq}, had come {apart(this.at - sooner.at)} before"
    return gap + _between(past, sooner, this)


def _moved(finding: Finding, past: Past) -> str:
    """Skipped or backwards: since the delivery that the process had before in this partition."""
    this = past.found(finding)
    if not this:
        return ""
    place = (this.process, this.topic, this.partition)
    before = past.before(this.at, lambda op: _delivered(op) and (op.process, op.topic, op.partition) == place)
    if not before:
        return ""
    return f", {apart(this.at - before.at)} after {named(before.value, before.key)}{_between(past, before, this)}"


def _aborted(finding: Finding, past: Past) -> str:
    failed = [
        op for op in past.traces.get(finding.value, ()) if op.action is Action.WRITE and op.outcome is Outcome.FAIL
    ]
    if not failed:
        return ""
    end = failed[-1]
    why = f" ({shortened(end.note, 80)})" if end.note else ""
    when = f"{apart(abs(finding.at - end.at))} {'before' if end.at <= finding.at else 'later'}"
    return f": {when}, in {end.process}{why}"


def _phantom(finding: Finding, past: Past) -> str:
    writes, sends = (past.tried(finding.value, action) for action in (Action.WRITE, Action.SEND))
    if not writes:
        return f"; {sends[-1].op.process} sent it" if sends else ""
    first = writes[0]
    fault = past.fault_within(first.start, finding.at, first.op.process) or past.fault_after(first.start)
    hit = f": {apart(max(fault.at - first.start, 0))} after it began, {befell(fault)}" if fault else ""
    return f"; {WRITES[first.op.outcome].format(process=first.op.process)}{hit}"


def _between(past: Past, first: Op, second: Op) -> str:
    fault = past.fault_within(first.at, second.at, second.process)
    return f"; in between {befell(fault)}" if fault else ""


WINDOWS: dict[str, Callable[[Finding, Past], str]] = {
    Kind.LOST: _lost,
    Kind.DUPLICATE_DELIVERY: _delivered_again,
    Kind.DUPLICATE_EFFECT: _effect_again,
    Kind.REORDERED: _reordered,
    Kind.SKIPPED: _moved,
    Kind.BACKWARDS: _moved,
    Kind.ABORTED_READ: _aborted,
    Kind.PHANTOM: _phantom,
}
