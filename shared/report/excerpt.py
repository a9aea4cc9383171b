"""What to show of a history that may hold a million operations: the events around its faults and anomalies."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from shared.history import Action, History, Op
from shared.record import Finding
from shared.report.attempts import Attempt, attempts


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one picture can hold and still be read."""

    values: int = 40
    marks: int = 160
    faults: int = 20
    findings: int = 24  # values that are there for an anomaly; the rest is room for what is normal around them
    reach: int = 6  # values before and after each fault or anomaly
    plain: int = 14  # values where there is neither
    marks_per_value: int = 12


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is shown, and how much there is. `numbers` counts events from 1 in the order of their first appearance."""

    attempts: tuple[Attempt, ...]
    faults: tuple[Op, ...]
    findings: tuple[Finding, ...]
    numbers: dict[str, int]
    values: int
    all_values: int
    all_faults: int

    @property
    def complete(self) -> bool:
        return self.values == self.all_values and len(self.faults) == self.all_faults


def choose(history: History, findings: Sequence[Finding], limits: Limits = LIMITS) -> Excerpt:
    """Faults first, then the findings' events, then events before and after each, until the limits are reached."""
    order = _numbers(history)
    faults = history.faults[: limits.faults]
    wanted = _ranked(history, faults, findings, limits)
    shown = _within(history, wanted, findings, limits)
    values = {attempt.op.value for attempt in shown}
    return Excerpt(
        attempts=tuple(shown),
        faults=faults,
        findings=tuple(finding for finding in findings if finding.value in values),
        numbers={value: order[value] for value in sorted(values, key=order.__getitem__)},
        values=len(values),
        all_values=len(order),
        all_faults=len(history.faults),
    )


def _numbers(history: History) -> dict[str, int]:
    seen = dict.fromkeys(op.value for op in history.ops if op.value and _drawn(op))
    return {value: number for number, value in enumerate(seen, 1)}


def _drawn(op: Op) -> bool:
    return op.action is not Action.READ and op.action is not Action.FAULT


def _ranked(history: History, faults: Sequence[Op], findings: Sequence[Finding], limits: Limits) -> list[str]:
    """Values by how much they matter, at most `limits.values`."""
    chosen = _by_turns(findings, limits.findings)
    focuses = [fault.at for fault in faults] + [finding.at for finding in chosen]
    rings = [_around(history, at, limits.reach) for at in focuses]
    context = (value for ring in zip_longest(*rings) for value in ring if value)
    plain = islice(
        dict.fromkeys(op.value for op in islice(history.ops, 10_000) if op.value and _drawn(op)), limits.plain
    )
    known = {finding.value: None for finding in chosen}
    ranked = dict.fromkeys([*known, *(context if focuses else plain)])
    return list(islice(ranked, limits.values))


def _by_turns(findings: Sequence[Finding], limit: int) -> list[Finding]:
    """Findings of distinct events, one of each kind in turn, so that no kind crowds out another."""
    kinds: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.at):
        kinds.setdefault(finding.kind, []).append(finding)
    turns = (finding for turn in zip_longest(*kinds.values()) for finding in turn if finding and finding.value)
    distinct: dict[str, Finding] = {}
    for finding in turns:
        distinct.setdefault(finding.value, finding)
    return list(islice(distinct.values(), limit))


def _around(history: History, at: int, reach: int) -> list[str]:
    """Values nearest to a moment: one before, one after, and so on outwards."""
    place = bisect_left(history.ops, at, key=lambda op: op.at)
    before = _values(history.ops, range(place - 1, -1, -1), reach)
    after = _values(history.ops, range(place, len(history.ops)), reach)
    return [value for pair in zip_longest(before, after) for value in pair if value]


def _values(ops: Sequence[Op], places: Iterable[int], limit: int) -> list[str]:
    # A final read may follow with as many operations as the whole run: look only so far.
    near: Iterator[Op] = (ops[place] for place in islice(places, 5_000))
    return list(islice(dict.fromkeys(op.value for op in near if op.value and _drawn(op)), limit))


def _within(history: History, wanted: list[str], findings: Sequence[Finding], limits: Limits) -> list[Attempt]:
    """Attempts of as many wanted values as the limit of marks allows."""
    ops: dict[str, list[Op]] = {value: [] for value in wanted}
    for op in history.ops:
        if op.value in ops:
            ops[op.value].append(op)
    moments = {(finding.process, finding.at) for finding in findings}
    shown: list[Attempt] = []
    for value in wanted:
        tried = _trimmed(attempts(ops[value]), moments, limits.marks_per_value)
        if len(shown) + len(tried) <= limits.marks:
            shown += tried
    return sorted(shown, key=lambda attempt: attempt.end)


def _trimmed(tried: list[Attempt], moments: set[tuple[str, int]], limit: int) -> list[Attempt]:
    """At most `limit` attempts of one value, its anomalies kept before the rest."""
    ranked = sorted(tried, key=lambda attempt: ((attempt.op.process, attempt.end) not in moments, attempt.end))
    return ranked[:limit]
