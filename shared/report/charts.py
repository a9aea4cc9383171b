"""Figures -> charts: figures of one name make one chart, and their `x` decides which kind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.record import Figure
from shared.report.bars import BarChart, bar_chart
from shared.report.lines import LineChart, line_chart
from shared.report.words import measured, number


@dataclass(frozen=True, slots=True)
class Row:
    """One figure as the table under its chart prints it; every cell is text, empty where not measured."""

    variant: str
    wrong_way: bool
    x: str
    value: str
    n: str
    p50: str
    p95: str
    p99: str
    low: str
    high: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture and the numbers behind it. `picture` is None where no value is finite."""

    name: str
    unit: str
    variant: str  # the one that it is about; empty where bars or lines name several
    wrong_way: bool
    x_label: str
    picture: BarChart | LineChart | None
    rows: tuple[Row, ...]


def charts(figures: Sequence[Figure]) -> tuple[Chart, ...]:
    """One chart per (name, unit), in the order of first appearance."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.name, figure.unit), []).append(figure)
    return tuple(_chart(name, unit, group) for (name, unit), group in groups.items())


def _chart(name: str, unit: str, figures: list[Figure]) -> Chart:
    finite = [figure for figure in figures if math.isfinite(figure.value)]
    variants = {figure.variant for figure in figures}
    return Chart(
        name=name,
        unit=unit,
        variant=variants.pop() if len(variants) == 1 else "",
        wrong_way=all(figure.wrong_way for figure in figures),
        x_label=next((figure.x_label for figure in figures if figure.x_label), ""),
        picture=_picture(finite) if finite else None,
        rows=tuple(map(_row, figures)),
    )


def _picture(figures: list[Figure]) -> BarChart | LineChart:
    numeric = all(isinstance(figure.x, float) for figure in figures)
    # One x makes no line: bars show it better.
    if numeric and len({figure.x for figure in figures}) > 1:
        return line_chart(figures)
    return bar_chart(figures)


def _row(figure: Figure) -> Row:
    return Row(
        variant=figure.variant,
        wrong_way=figure.wrong_way,
        x=x_text(figure),
        value=measured(figure.value, figure.unit) if math.isfinite(figure.value) else "not finite",
        n=number(figure.n),
        p50=_cell(figure.p50),
        p95=_cell(figure.p95),
        p99=_cell(figure.p99),
        low=_cell(figure.low),
        high=_cell(figure.high),
        parameters=", ".join(f"{name}={value}" for name, value in figure.parameters.items()),
    )


def x_text(figure: Figure) -> str:
    """The figure's x as text, empty where it has none."""
    if figure.x is None:
        return ""
    return number(figure.x) if isinstance(figure.x, float) else figure.x


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else number(value)
