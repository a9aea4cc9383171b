"""What the template of a space-time diagram draws, in px from the top left: time runs downwards."""

from dataclasses import dataclass

from shared.record import Finding
from shared.report.excerpt import Excerpt
from shared.report.lanes import Lane
from shared.report.marks import LOST, Mark


@dataclass(frozen=True, slots=True)
class Arrow:
    """From (x1, y1) to (x2, y2) px, never upwards. `kind`: message, local (within a lane), or lost (ends broken).

    `mark` is the place among the marks of the one that it leads to; a lost event's leads away from its last one.
    """

    kind: str
    number: int
    mark: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class FaultMark:
    """A fault in the lane of the process hit, from `y` to `end` px; `down` is how far the lane is dead (px).

    `at` is ns in the diagram, `line` is the fault in words.
    """

    lane: int
    x: float
    y: float
    end: float
    down: float
    label: str
    title: str
    at: int
    line: str


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

    def anchor(self, finding: Finding) -> str:
        """Where the finding is drawn: its arrow ("a3"), or its mark where none leads to it ("m5"); empty if nowhere."""
        place = self._mark(finding)
        same = [number for number, arrow in enumerate(self.arrows) if self._shows(arrow, finding, place)]
        return f"a{same[0]}" if same else f"m{place}" if place is not None else ""

    def _mark(self, finding: Finding) -> int | None:
        sought = (finding.process, finding.at, finding.value)
        ends = ((one.op.process, one.end, one.op.value) for one in self.excerpt.attempts)
        return next((place for place, end in enumerate(ends) if end == sought), None)

    def _shows(self, arrow: Arrow, finding: Finding, place: int | None) -> bool:
        if finding.kind == LOST:
            return arrow.kind == "lost" and arrow.number == self.excerpt.numbers.get(finding.value)
        return arrow.kind != "lost" and arrow.mark == place
