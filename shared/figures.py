"""Samples, as the fields of a figure."""

import statistics
from collections.abc import Sequence

from shared.errors import ConfigurationError


def distribution(name: str, samples: Sequence[float]) -> dict[str, float | int]:
    """The median, the centiles and the range of the samples. Raises ConfigurationError where there are none."""
    if not samples:
        raise ConfigurationError(f"the figure {name!r} has no samples")
    ordered = sorted(samples)
    centiles = statistics.quantiles(ordered, n=100, method="inclusive") if len(ordered) > 1 else [ordered[0]] * 99
    median = statistics.median(ordered)
    return {
        "value": median,
        "n": len(ordered),
        "p50": median,
        "p95": centiles[94],
        "p99": centiles[98],
        "low": ordered[0],
        "high": ordered[-1],
    }
