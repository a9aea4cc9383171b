"""Axis scales: where on an axis a value lies, and which ticks read well."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

DECADES = 2  # a wider range than this is drawn on a logarithmic axis


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from `low`..`high` to 0..1. `ticks` are values within."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Place of a value, held within 0..1 (whiskers may reach beyond the axis)."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)


def spans_decades(values: Iterable[float]) -> bool:
    """Whether positive values range over more than DECADES."""
    found = list(values)
    return min(found) > 0 and max(found) / min(found) > 10**DECADES


def rounded(values: Iterable[float], log: bool = False) -> Scale:
    """An axis that ends on round ticks; a linear one holds zero, so that lengths compare."""
    found = list(values)
    return _decades(min(found), max(found)) if log else _linear(min(0.0, *found), max(0.0, *found))


def tight(values: Iterable[float], apart: float = 0.08) -> Scale:
    """An axis that ends on the outermost values, with ticks at the values themselves, `apart` (share of the axis)."""
    found = sorted(set(values))
    low, high = found[0], found[-1]
    if low == high:
        low, high = low - 1, high + 1
        return Scale(low, high, False, tuple(found))
    scale = Scale(low, high, spans_decades(found), ())
    return Scale(low, high, scale.log, _thinned(scale, found, apart))


def _thinned(scale: Scale, values: list[float], apart: float) -> tuple[float, ...]:
    kept: list[float] = []
    for value in values:
        if not kept or scale.at(value) - scale.at(kept[-1]) >= apart:
            kept.append(value)
    return tuple(kept)


def _linear(low: float, high: float, count: int = 4) -> Scale:
    if low == high:
        high = low + 1
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    # Multiplying by a step of 0.1 leaves 0.30000000000000004.
    ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], False, ticks)


def _round_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough * 0.999)


def _decades(low: float, high: float) -> Scale:
    bottom, top = _steps(low)[0], _steps(high)[1]
    first, last = math.ceil(math.log10(bottom) - 1e-9), math.floor(math.log10(top) + 1e-9)
    every = max(1, (last - first) // 5)
    return Scale(bottom, top, True, tuple(10.0**power for power in range(first, last + 1, every)))


def _steps(value: float) -> tuple[float, float]:
    """The nearest of 1, 2, 5 times a power of ten, at or below the value and at or above it."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [nice * power for nice in (1, 2, 5, 10)]
    below = next(step for step in reversed(steps) if step <= value * (1 + 1e-9))
    return below, next(step for step in steps if step >= value * (1 - 1e-9))
