"""What a history knows of the events that went wrong, and of the faults around a moment."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shared.history import Action, History, Op, Outcome
from shared.record import Finding
from shared.report.attempts import Attempt, attempts

FAR = 200_000  # operations that are looked through for a neighbour


@dataclass(frozen=True, slots=True)
class Past:
    """`traces` are the operations of each event in question, in the order of their time."""

    history: History
    traces: Mapping[str, Sequence[Op]]

    @classmethod
    def of(cls, history: History, findings: Iterable[Finding]) -> "Past":
        traces: dict[str, list[Op]] = {finding.value: [] for finding in findings if finding.value}
        for op in history.ops:
            if op.value in traces and op.action not in (Action.READ, Action.FAULT):
                traces[op.value].append(op)
        return cls(history, traces)

    def tried(self, value: str, action: Action) -> list[Attempt]:
        """Attempts at one event, those left out that certainly did not happen."""
        found = attempts(self.traces.get(value, ()))
        return [one for one in found if one.op.action is action and one.op.outcome is not Outcome.FAIL]

    def found(self, finding: Finding) -> Op | None:
        """The operation at which a finding was made."""
        traces = self.traces.get(finding.value, ())
        return next((op for op in traces if (op.process, op.at) == (finding.process, finding.at)), None)

    def before(self, at: int, matches: Callable[[Op], bool]) -> Op | None:
        """The last operation before a moment that matches."""
        place = self._place(at)
        nearest = range(place - 1, max(place - FAR, 0) - 1, -1)
        return next((op for op in map(self.history.ops.__getitem__, nearest) if op.at < at and matches(op)), None)

    def after(self, at: int, matches: Callable[[Op], bool]) -> Op | None:
        """The first operation after a moment that matches."""
        place = self._place(at)
        nearest = range(place, min(place + FAR, len(self.history.ops)))
        return next((op for op in map(self.history.ops.__getitem__, nearest) if op.at > at and matches(op)), None)

    def fault_within(self, start: int, end: int, process: str = "") -> Op | None:
        """The last fault that touches a stretch of time; one of that process before any other."""
        within = [fault for fault in self.history.faults if _lasts(fault, start) and fault.at <= end]
        return next(reversed([fault for fault in within if fault.process == process] or within), None)

    def fault_after(self, at: int) -> Op | None:
        """The first fault that is not over at a moment."""
        return next((fault for fault in self.history.faults if _lasts(fault, at)), None)

    def _place(self, at: int) -> int:
        return bisect_left(self.history.ops, at, key=lambda op: op.at)


def _lasts(fault: Op, at: int) -> bool:
    return max(fault.until, fault.at) >= at
