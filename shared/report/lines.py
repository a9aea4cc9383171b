"""Lines by variant over a numeric x. Across is percent, down is px: text keeps its size on any screen."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.record import Figure
from shared.report.scale import Scale, rounded, spans_decades, tight
from shared.report.spread import labels, spread
from shared.report.words import measured, number

HEIGHT, TOP, BOTTOM = 300, 16, 256  # px; BOTTOM is where the x axis lies
LEFT, RIGHT = 0.0, 100.0  # percent; the style sheet leaves a margin for the labels of the y axis
MARKERS = 4  # shapes that the template can draw


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis: percent on x, px on y."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """One figure; `low` and `high` are the y (px) of its whisker, equal to `y` where it has none."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass(frozen=True, slots=True)
class Series:
    """One variant, from left to right. `marker` 0..3 picks shape and dash, so that colour is not needed."""

    label: str
    wrong_way: bool
    marker: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class LineChart:
    """Series, ticks and what the axes are; `scales` says which are logarithmic, empty where none is;
    `spreads` what the whiskers are.
    """

    kind: str
    height: int
    top: int
    bottom: int
    left: float
    right: float
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    scales: str
    spreads: str
    series: tuple[Series, ...]


def line_chart(figures: Sequence[Figure]) -> LineChart:
    """Lines over the figures' x, which are all numbers."""
    values = [figure.value for figure in figures]
    ends = [end for found in map(spread, figures) if found for end in (found.low, found.high)]
    extent = values + ends
    across, up = tight(_x(figure) for figure in figures), rounded(extent, spans_decades(extent))
    return LineChart(
        kind="lines",
        height=HEIGHT,
        top=TOP,
        bottom=BOTTOM,
        left=LEFT,
        right=RIGHT,
        x_label=next((figure.x_label for figure in figures if figure.x_label), ""),
        x_ticks=tuple(Tick(_percent(across, value), number(value)) for value in across.ticks),
        y_ticks=tuple(Tick(_px(up, value), number(value)) for value in up.ticks),
        scales=_scales(across.log, up.log),
        spreads=labels(figures),
        series=_series(figures, across, up),
    )


def _series(figures: Sequence[Figure], across: Scale, up: Scale) -> tuple[Series, ...]:
    variants: dict[tuple[str, bool], list[Figure]] = {}
    for figure in figures:
        variants.setdefault((figure.variant, figure.wrong_way), []).append(figure)
    return tuple(
        Series(
            variant, wrong_way, index % MARKERS, tuple(_point(figure, across, up) for figure in sorted(group, key=_x))
        )
        for index, ((variant, wrong_way), group) in enumerate(variants.items())
    )


def _point(figure: Figure, across: Scale, up: Scale) -> Point:
    y, found = _px(up, figure.value), spread(figure)
    place = f"{figure.x_label or 'x'} {number(_x(figure))}"
    title = f"{figure.variant or figure.name}, {place}: {measured(figure.value, figure.unit)}"
    return Point(
        x=_percent(across, _x(figure)),
        y=y,
        low=_px(up, found.low) if found else y,
        high=_px(up, found.high) if found else y,
        title=f"{title} ({found.text})" if found else title,
    )


def _x(figure: Figure) -> float:
    return float(figure.x or 0)


def _percent(scale: Scale, value: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * scale.at(value), 2)


def _px(scale: Scale, value: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * scale.at(value), 1)


def _scales(across: bool, up: bool) -> str:
    if across and up:
        return "both axes logarithmic"
    return "x axis logarithmic" if across else "y axis logarithmic" if up else ""
