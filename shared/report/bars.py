"""Horizontal bars by variant, grouped where the figures have a textual x.

Lengths are percent of the drawing's width and heights are px: the SVG then fits any screen with its text at full size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.record import Figure
from shared.report.scale import Scale, rounded
from shared.report.spread import Spread, labels, spread
from shared.report.words import measured, number, shortened

ROW, HEADING = 46, 30  # px
WIDEST = 74.0  # percent; the rest is room for the value label


@dataclass(frozen=True, slots=True)
class Whisker:
    """A line from `low` to `high`, percent; `text` says what it spans."""

    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `y` px is the top of its row; `start`, `width` and `end` (of bar and whisker) are percent."""

    y: int
    label: str
    title: str
    wrong_way: bool
    start: float
    width: float
    end: float
    value: str
    whisker: Whisker | None


@dataclass(frozen=True, slots=True)
class Heading:
    """The x that the bars below it share; `y` px."""

    y: int
    text: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars from the top down; `zero` percent is where they start; `height` px; `spreads`: what the whiskers are."""

    kind: str
    height: int
    zero: float
    spreads: str
    headings: tuple[Heading, ...]
    bars: tuple[Bar, ...]


def bar_chart(figures: Sequence[Figure]) -> BarChart:
    """Bars in the order of the figures, those of one x together."""
    scale = rounded(_extent(figures))
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(_group(figure), []).append(figure)
    y, headings, bars = 0, [], []
    for text, group in groups.items():
        if text:
            headings.append(Heading(y, text))
            y += HEADING
        bars += [_bar(figure, y + ROW * index, scale, group) for index, figure in enumerate(group)]
        y += ROW * len(group)
    return BarChart("bars", y, scale.at(0) * WIDEST, labels(figures), tuple(headings), tuple(bars))


def _extent(figures: Sequence[Figure]) -> list[float]:
    spreads = [found for found in map(spread, figures) if found]
    return [figure.value for figure in figures] + [end for found in spreads for end in (found.low, found.high)]


def _group(figure: Figure) -> str:
    if figure.x is None:
        return ""
    x = number(figure.x) if isinstance(figure.x, float) else figure.x
    return f"{figure.x_label} {x}".strip() if isinstance(figure.x, float) else x


def _bar(figure: Figure, y: int, scale: Scale, group: Sequence[Figure]) -> Bar:
    start, end = sorted((scale.at(0) * WIDEST, scale.at(figure.value) * WIDEST))
    whisker = _whisker(spread(figure), scale)
    name = _name(figure, group)
    value = measured(figure.value, figure.unit)
    return Bar(
        y=y,
        label=shortened(name, 46),
        title=f"{name or figure.name}: {value}" + (f" ({whisker.text})" if whisker else ""),
        wrong_way=figure.wrong_way,
        start=start,
        width=end - start,
        end=max(end, whisker.high if whisker else 0),
        value=value,
        whisker=whisker,
    )


def _whisker(found: Spread | None, scale: Scale) -> Whisker | None:
    if found is None:
        return None
    return Whisker(scale.at(found.low) * WIDEST, scale.at(found.high) * WIDEST, found.text)


def _name(figure: Figure, group: Sequence[Figure]) -> str:
    """The variant, and whichever parameters tell figures of one variant apart."""
    rivals = [other for other in group if other.variant == figure.variant and other is not figure]
    differing = [
        f"{name} {value}"
        for name, value in figure.parameters.items()
        if any(other.parameters.get(name) != value for other in rivals)
    ]
    return ", ".join(filter(None, [figure.variant, *differing]))
