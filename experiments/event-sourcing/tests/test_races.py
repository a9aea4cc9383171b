"""The benchmark's arithmetic: what a reader did not see as it was, whose turn it is, what a load must come to."""

import pytest
from sourcing.stage.contenders import balance, new_events
from sourcing.stage.races import in_turn, wrongly_seen

COUNTS = {"a": 3, "b": 2}
IN_ORDER = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]


def test_nothing_is_wrong_with_a_reader_that_saw_every_stream_in_its_order() -> None:
    assert wrongly_seen(IN_ORDER, COUNTS) == 0


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ([], 5),  # all missed
        (IN_ORDER[1:], 1),  # the first missed
        ([*IN_ORDER, ("a", 3)], 1),  # one again
        ([("a", 2), ("a", 1), ("a", 3), ("b", 1), ("b", 2)], 1),  # one late
        ([("a", 1), ("a", 1), ("a", 3), ("b", 1), ("b", 2)], 2),  # one again in the place of one missed
    ],
)
def test_a_reader_is_told_what_it_missed_or_had_again_or_late(seen: list[tuple[str, int]], wrong: int) -> None:
    assert wrongly_seen(seen, COUNTS) == wrong


def test_contenders_take_turns_in_being_first() -> None:
    assert [in_turn("ab", number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_an_account_of_so_many_events_has_the_balance_that_loading_must_give() -> None:
    events = new_events(1500)
    assert len(events) == 1500
    assert sum(event.data.get("cents", 0) for event in events) == balance(1500)
