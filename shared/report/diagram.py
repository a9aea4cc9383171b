"""What the template of a space-time diagram draws, in px from the top left: time runs downwards."""

from dataclasses import dataclass

from shared.report.excerpt import Excerpt
from shared.report.lanes import Lane
from shared.report.marks import Mark


@dataclass(frozen=True, slots=True)
class Arrow:
    """From (x1, y1) to (x2, y2) px, never upwards. `kind`: message, local (within a lane), or lost (ends broken)."""

    kind: str
    number: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class FaultMark:
    """A fault in the lane of the process hit, from `y` to `end` px; `down` is how far the lane is dead (px)."""

    lane: int
    x: float
    y: float
    end: float
    down: float
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a height (px): a tick of the time axis, or what a break leaves out."""

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Diagram:
    """All that the template draws, in px."""

    width: float
    height: float
    top: float
    bottom: float
    lanes: tuple[Lane, ...]
    marks: tuple[Mark, ...]
    arrows: tuple[Arrow, ...]
    faults: tuple[FaultMark, ...]
    breaks: tuple[Label, ...]
    ticks: tuple[Label, ...]
    excerpt: Excerpt
