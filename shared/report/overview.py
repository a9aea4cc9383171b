"""The whole history as one strip: how busy it was, where the faults and anomalies lie, which part the diagram shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.history import Action, History
from shared.record import Finding
from shared.report.excerpt import Excerpt
from shared.report.words import lasting

BINS = 120
JOINED = 1.5  # percent: windows nearer to each other than this are drawn as one


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the strip, percent."""

    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Overview:
    """`bins` are 0..1, evenly over the run; the rest is percent of the width. `length` is the run's, as text."""

    bins: tuple[float, ...]
    windows: tuple[Window, ...]
    faults: tuple[float, ...]
    anomalies: tuple[float, ...]
    length: str


def overview(history: History, excerpt: Excerpt, findings: Sequence[Finding]) -> Overview:
    """The strip of a history that holds at least one operation beside its final read."""
    # The final read comes when all is over: it would only dwarf the run.
    times = [op.at for op in history.ops if op.action is not Action.READ]
    first, last = times[0], times[-1]
    span = max(last - first, 1)

    def place(at: int) -> float:
        return round(100 * min(max((at - first) / span, 0), 1), 2)

    shown = sorted(place(attempt.end) for attempt in excerpt.attempts)
    return Overview(
        bins=_bins(times, first, span),
        windows=_windows(shown),
        faults=tuple(place(fault.at) for fault in history.faults[:200]),
        anomalies=tuple(sorted({place(finding.at) for finding in findings})),
        length=lasting(span / 1e9) if span >= 1e9 else f"{span / 1e6:,.0f}\N{NO-BREAK SPACE}ms",
    )


def _bins(times: Sequence[int], first: int, span: int) -> tuple[float, ...]:
    amounts = [0] * (BINS + 1)
    for at in times:
        amounts[(at - first) * BINS // span] += 1
    amounts[BINS - 1] += amounts.pop()
    most = max(amounts)
    return tuple(round(amount / most, 3) for amount in amounts)


def _windows(shown: Sequence[float]) -> tuple[Window, ...]:
    found: list[tuple[float, float]] = []
    for at in shown:
        if found and at - found[-1][1] < JOINED:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return tuple(Window(max(start - 0.3, 0), round(end - start + 0.6, 2)) for start, end in found)
