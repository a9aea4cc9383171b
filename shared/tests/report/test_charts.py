"""Figures become the chart that their x asks for."""

from shared.record import Figure
from shared.report.bars import BarChart
from shared.report.charts import charts
from shared.report.lines import LineChart


def test_figures_of_one_name_make_one_chart() -> None:
    found = charts([Figure(name=name, value=1, unit="ms", variant=variant) for name in "ab" for variant in "xyz"])
    assert [(chart.name, len(chart.rows)) for chart in found] == [("a", 3), ("b", 3)]


def test_without_x_bars_are_as_long_as_their_values_and_the_wrong_way_is_marked() -> None:
    figures = [
        Figure(name="lost", value=20, unit="events", variant="dual write", wrong_way=True),
        Figure(name="lost", value=10, unit="events", variant="outbox"),
    ]
    picture = charts(figures)[0].picture
    assert isinstance(picture, BarChart)
    assert picture.bars[0].width == 2 * picture.bars[1].width
    assert [bar.wrong_way for bar in picture.bars] == [True, False]


def test_a_whisker_spans_p50_to_p99_or_low_to_high() -> None:
    figures = [
        Figure(name="t", value=5, unit="ms", variant="a", p50=5, p99=10),
        Figure(name="t", value=5, unit="ms", variant="b", low=4, high=6),
        Figure(name="t", value=5, unit="ms", variant="c", low=4, high=4),
    ]
    picture = charts(figures)[0].picture
    assert isinstance(picture, BarChart)
    assert [bar.whisker and bar.whisker.text for bar in picture.bars] == ["p50–p99 5–10", "low–high 4–6", None]


def test_a_numeric_x_makes_a_line_per_variant_from_left_to_right() -> None:
    figures = [Figure(name="t", value=v, unit="ms", variant=w, x=x) for w in "ab" for x, v in ((100.0, 9), (1.0, 3))]
    picture = charts(figures)[0].picture
    assert isinstance(picture, LineChart)
    assert [[point.x for point in series.points] for series in picture.series] == [[0, 100], [0, 100]]
    assert len({series.marker for series in picture.series}) == 2


def test_more_than_two_decades_are_drawn_on_logarithmic_axes_and_said() -> None:
    figures = [Figure(name="t", value=10.0**power, unit="ms", x=10.0**power) for power in range(4)]
    picture = charts(figures)[0].picture
    assert isinstance(picture, LineChart)
    assert picture.scales == "both axes logarithmic"


def test_a_textual_x_groups_bars_under_headings() -> None:
    figures = [
        Figure(name="t", value=1, unit="", variant=variant, x=x) for variant in "ab" for x in ("lost", "phantom")
    ]
    picture = charts(figures)[0].picture
    assert isinstance(picture, BarChart)
    assert [heading.text for heading in picture.headings] == ["lost", "phantom"]
    assert [bar.label for bar in picture.bars] == ["a", "b", "a", "b"]


def test_bars_of_one_variant_are_told_apart_by_their_parameters() -> None:
    figures = [Figure(name="t", value=1, unit="", variant="a", parameters={"batch": n, "seed": 7}) for n in (1, 10)]
    picture = charts(figures)[0].picture
    assert isinstance(picture, BarChart)
    assert [bar.label for bar in picture.bars] == ["a, batch 1", "a, batch 10"]


def test_a_chart_of_one_variant_names_it() -> None:
    figures = [Figure(name="a", value=1, unit="", variant="outbox"), Figure(name="b", value=1, unit="", variant="x")]
    found = charts([*figures, Figure(name="b", value=1, unit="", variant="y", wrong_way=True)])
    assert [(chart.variant, chart.wrong_way) for chart in found] == [("outbox", False), ("", False)]
