"""Time -> px. Order is kept exactly; distance is stretched where marks crowd and cut where nothing happens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

TYPICAL, LONGEST, CUT = 8.0, 34.0, 36.0  # px: of a median gap, of the longest drawn gap, of a break
ENOUGH = 1_000.0  # px that all gaps together may take before they are drawn tighter
BREAK_FROM, BREAK_SHARE = 12.0, 0.015  # of the median gap, and of the time shown: longer than both is a break
TICK_APART, BREAK_APART = 30.0, 18.0  # px


@dataclass(frozen=True, slots=True)
class Instant:
    """Something to place: when (ns), in which lane, how many px it needs there, and over how many lanes it reaches."""

    at: int
    lane: int
    room: float
    lanes: int = 1

    @property
    def covers(self) -> range:
        return range(self.lane, self.lane + self.lanes)


@dataclass(frozen=True, slots=True)
class Break:
    """A stretch left out: its middle (px) and its two ends (ns)."""

    y: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """`ys[i]` px belongs to `instants[i]`, in the order given; breaks are in time order."""

    instants: tuple[Instant, ...]
    ys: tuple[float, ...]
    breaks: tuple[Break, ...]
    bottom: float

    def ticks(self) -> list[tuple[float, int]]:
        """(y, at) of instants to label, far enough from each other and from the breaks."""
        found: list[tuple[float, int]] = []
        for y, at in sorted(zip(self.ys, (instant.at for instant in self.instants), strict=True)):
            free = not found or y - found[-1][0] >= TICK_APART
            if free and all(abs(cut.y - y) >= BREAK_APART for cut in self.breaks):
                found.append((y, at))
        return found


def lay_out(instants: Sequence[Instant], top: float) -> Timeline:
    """Places instants from `top` px downwards."""
    order = sorted(range(len(instants)), key=lambda place: instants[place].at)
    gaps = _gaps([instants[place].at for place in order])
    ys: dict[int, float] = {}
    breaks: list[Break] = []
    lowest: dict[int, tuple[float, float]] = {}  # lane -> (y, room) of its last instant
    y, before = top, 0
    for place, (gap, cut) in zip(order, gaps, strict=True):
        instant, free = instants[place], y + gap
        if cut:
            breaks.append(Break(round((y + free) / 2, 1), before, instant.at))
        above = (lowest.get(lane, (top, -instant.room)) for lane in instant.covers)
        y = round(max(free, *(lane_y + (room + instant.room) / 2 for lane_y, room in above)), 1)
        ys[place], before = y, instant.at
        lowest |= dict.fromkeys(instant.covers, (y, instant.room))
    return Timeline(tuple(instants), tuple(ys[place] for place in range(len(instants))), tuple(breaks), y)


def _gaps(times: Sequence[int]) -> list[tuple[float, bool]]:
    """(px above it, whether that is a break) for each of some moments in order."""
    spans = [later - earlier for earlier, later in pairwise(times)]
    usual = median([span for span in spans if span] or [1])
    silence = max(usual * BREAK_FROM, sum(spans) * BREAK_SHARE)
    cuts = [span > silence for span in spans]
    drawn = [max(1.0, min(span / usual * TYPICAL, LONGEST)) for span in spans]
    tighter = min(1.0, ENOUGH / max(sum(px for px, cut in zip(drawn, cuts, strict=True) if not cut), 1.0))
    gaps = [(CUT if cut else px * tighter, cut) for px, cut in zip(drawn, cuts, strict=True)]
    return [(0.0, False), *gaps] if times else []
