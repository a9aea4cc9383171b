"""The spread of one figure: what its whisker shows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shared.record import Figure
from shared.report.words import number


@dataclass(frozen=True, slots=True)
class Spread:
    """From `low` to `high` in the figure's unit; `label` says which measures they are."""

    low: float
    high: float
    label: str

    @property
    def text(self) -> str:
        return f"{self.label} {number(self.low)}–{number(self.high)}"


def spread(figure: Figure) -> Spread | None:
    """p50 to p99 where measured, else low to high; None where neither is or where all was one value."""
    for low, high, label in ((figure.p50, figure.p99, "p50–p99"), (figure.low, figure.high, "low–high")):
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            return Spread(low, high, label) if low < high else None
    return None


def labels(figures: Iterable[Figure]) -> str:
    """What the whiskers of these figures are, empty where they have none."""
    return ", ".join(dict.fromkeys(found.label for found in map(spread, figures) if found))
