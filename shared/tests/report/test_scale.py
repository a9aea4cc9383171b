"""Axes: ticks that read well, and places within the axis."""

import pytest

from shared.report.scale import rounded, spans_decades, tight


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([3, 8.2], (0, 5, 10)),
        ([0.11, 0.29], (0, 0.1, 0.2, 0.3)),
        ([0], (0, 0.5, 1)),
        ([-4, 4], (-4, -2, 0, 2, 4)),
        ([1234], (0, 500, 1000, 1500)),
    ],
)
def test_a_linear_axis_holds_zero_and_ends_on_round_ticks(values: list[float], ticks: tuple[float, ...]) -> None:
    assert rounded(values).ticks == pytest.approx(ticks)


def test_a_logarithmic_axis_has_a_tick_per_decade() -> None:
    axis = rounded([1.1, 1500], log=True)
    assert axis.ticks == pytest.approx((1, 10, 100, 1000))
    assert axis.at(10) - axis.at(1) == pytest.approx(axis.at(1000) - axis.at(100))


def test_only_more_than_two_decades_are_logarithmic() -> None:
    assert spans_decades([1, 101])
    assert not spans_decades([1, 100])
    assert not spans_decades([0, 1000])


def test_a_tight_axis_ticks_the_values_themselves_but_not_close_ones() -> None:
    axis = tight([1, 2, 3, 100])
    assert axis.ticks == (1, 100)
    assert tight([1, 10, 100, 1000]).ticks == (1, 10, 100, 1000)


def test_places_stay_within_the_axis() -> None:
    axis = rounded([10])
    assert (axis.at(-5), axis.at(5), axis.at(50)) == (0, 0.5, 1)
    assert rounded([1, 1000], log=True).at(0) == 0
