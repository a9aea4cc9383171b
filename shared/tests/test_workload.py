"""The orders of the shop: the same from the same seed, unique, and numbered without gaps."""

from collections import defaultdict
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.event import Event
from shared.workload import LIFE, events

SEEDS, COUNTS = st.integers(0, 2**32), st.integers(1, 60)


def by_order(made: list[Event]) -> dict[str, list[Event]]:
    orders = defaultdict(list)
    for event in made:
        orders[event.subject].append(event)
    return orders


@given(SEEDS, COUNTS)
def test_the_same_seed_gives_the_same_events(seed: int, count: int) -> None:
    made = list(events(seed, count))
    assert made == list(events(seed, count))
    assert len(made) == count


def test_another_seed_gives_other_events() -> None:
    first, second = ({event.id for event in events(seed, 100)} for seed in (1, 2))
    assert not first & second


@given(SEEDS, COUNTS)
def test_ids_are_unique_uuid7_in_the_order_of_time(seed: int, count: int) -> None:
    made = list(events(seed, count))
    assert {UUID(event.id).version for event in made} == {7}
    assert all(one.id < other.id and one.time < other.time for one, other in pairwise(made))


@given(SEEDS, COUNTS)
def test_the_events_of_an_order_are_numbered_from_1_without_a_gap(seed: int, count: int) -> None:
    for order in by_order(list(events(seed, count))).values():
        assert [event.sequence for event in order] == list(range(1, len(order) + 1))
        assert [event.type.rpartition(".")[2] for event in order] == list(LIFE[: len(order)])


@given(SEEDS, st.integers(1, 5), COUNTS)
def test_a_given_number_of_orders_lives_as_long_as_events_are_wanted(seed: int, orders: int, count: int) -> None:
    lives = by_order(list(events(seed, count, orders=orders)))
    assert len(lives) <= orders
    assert all([event.sequence for event in life] == list(range(1, len(life) + 1)) for life in lives.values())


@given(SEEDS, COUNTS)
def test_an_event_belongs_to_its_order_by_key_subject_and_correlation(seed: int, count: int) -> None:
    for event in events(seed, count):
        assert event.subject == event.partition_key == event.correlation_id == event.data["order"]
        assert event.data["cents"] > 0


def test_orders_of_two_prefixes_are_different_orders() -> None:
    first, second = (set(by_order(list(events(1, 40, prefix=prefix)))) for prefix in ("shop-a", "shop-b"))
    assert not first & second
    assert all(name.startswith("shop-a-") for name in first)


def test_orders_are_interleaved() -> None:
    subjects = [event.subject for event in events(7, 40)]
    assert subjects != sorted(subjects)
