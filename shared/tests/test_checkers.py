"""Each checker finds what it must and blames nothing that is right: on hand-made histories.

Offsets are in test_checkers_offsets.py, generated histories in test_checkers_generated.py.
"""

import pytest

from shared.checkers import (
    CHECKERS,
    Kind,
    aborted_read,
    check,
    duplicate_delivery,
    duplicate_effect,
    lost,
    phantom,
    reordered,
)
from shared.tests.histories import (
    DELIVER,
    EFFECT,
    FAIL,
    FAULT,
    INVOKE,
    READ,
    UNKNOWN,
    WRITE,
    at,
    history,
    numbered,
    op,
    sent,
    values,
)  # fmt: skip

# lost


def test_a_committed_event_that_nobody_received_is_lost() -> None:
    assert values(lost, op(WRITE), op(WRITE, "e2"), op(DELIVER, "e2")) == ["e1"]


def test_a_write_in_doubt_is_lost_only_if_the_final_read_found_it() -> None:
    assert values(lost, op(WRITE, outcome=UNKNOWN), op(WRITE, "e2", INVOKE)) == []
    assert values(lost, op(WRITE, outcome=UNKNOWN), op(WRITE, "e2", INVOKE), op(READ, "e2")) == ["e2"]


def test_a_refused_write_is_not_lost() -> None:
    assert values(lost, op(WRITE, outcome=FAIL)) == []


def test_a_delivery_that_was_refused_is_no_delivery() -> None:
    assert values(lost, op(WRITE), op(DELIVER, outcome=FAIL)) == ["e1"]


def test_lost_events_come_in_the_order_of_their_writes() -> None:
    names = [f"e{number}" for number in range(20)]
    assert values(lost, *(op(WRITE, name) for name in names)) == names


# duplicate delivery


def test_each_further_delivery_to_one_reader_is_a_duplicate() -> None:
    assert values(duplicate_delivery, op(DELIVER), op(DELIVER), op(DELIVER)) == ["e1", "e1"]


def test_a_delivery_to_another_group_is_no_duplicate() -> None:
    assert values(duplicate_delivery, op(DELIVER, group="billing"), op(DELIVER, group="shipping")) == []


def test_a_delivery_to_another_process_of_the_group_is_a_duplicate() -> None:
    first, second = (op(DELIVER, process=name, group="billing") for name in ("one", "two"))
    assert values(duplicate_delivery, first, second) == ["e1"]


def test_a_redelivery_after_a_restart_is_a_duplicate() -> None:
    assert values(duplicate_delivery, at(0), op(FAULT, "", process="reader", note="SIGKILL"), at(0)) == ["e0"]


def test_one_event_in_two_topics_is_a_duplicate_to_who_reads_both_only() -> None:
    both = at(0, "e1"), at(7, "e1", topic="orders.copy")
    assert values(duplicate_delivery, *both) == ["e1"]
    assert values(duplicate_delivery, both[0], at(7, "e1", "other", topic="orders.copy")) == []


def test_a_refused_and_then_accepted_delivery_is_no_duplicate() -> None:
    assert values(duplicate_delivery, op(DELIVER, outcome=FAIL), op(DELIVER)) == []


# duplicate effect


def test_a_second_effect_is_one_whichever_process_has_it() -> None:
    assert values(duplicate_effect, op(EFFECT, process="one"), op(EFFECT, process="two")) == ["e1"]


def test_effects_of_two_groups_are_two_things() -> None:
    assert values(duplicate_effect, op(EFFECT, group="billing"), op(EFFECT, group="shipping")) == []
    assert values(duplicate_effect, *[op(EFFECT, group="billing")] * 2) == ["e1"]


def test_an_effect_that_failed_or_is_in_doubt_does_not_count() -> None:
    assert values(duplicate_effect, op(EFFECT, outcome=FAIL), op(EFFECT, outcome=UNKNOWN), op(EFFECT)) == []


def test_a_second_delivery_without_a_second_effect_is_no_duplicate_effect() -> None:
    assert values(duplicate_effect, op(DELIVER), op(EFFECT), op(DELIVER)) == []


# reordered


def test_an_event_after_a_later_one_of_its_aggregate_is_reordered() -> None:
    assert values(reordered, *numbered("a", 1, 3, 2, 4)) == ["a-2"]


def test_everything_before_the_highest_number_so_far_is_reordered() -> None:
    assert values(reordered, *numbered("a", 4, 1, 2, 3)) == ["a-1", "a-2", "a-3"]


def test_aggregates_and_readers_have_orders_of_their_own() -> None:
    assert values(reordered, *numbered("a", 1, 2), *numbered("b", 1), *numbered("a", 1, process="other")) == []


def test_a_redelivery_is_not_reordered() -> None:
    assert values(reordered, *numbered("a", 1, 2, 1, 2, 3)) == []


def test_a_gap_is_not_reordered() -> None:
    assert values(reordered, *numbered("a", 2, 5)) == []


def test_the_processes_of_a_group_share_one_order() -> None:
    first, second = numbered("a", 2, process="one", group="g"), numbered("a", 1, process="two", group="g")
    assert values(reordered, *first, *second) == ["a-1"]


def test_events_without_numbers_have_no_order() -> None:
    assert values(reordered, *numbered("a", 2), op(DELIVER, "x", key="a"), *numbered("a", 3)) == []


# aborted read and phantom


def test_a_delivered_event_whose_write_failed_is_an_aborted_read_and_no_phantom() -> None:
    ops = op(WRITE, outcome=INVOKE), op(DELIVER), op(WRITE, outcome=FAIL), op(READ, "")
    assert values(aborted_read, *ops) == ["e1"]
    assert values(phantom, *ops) == []


def test_a_write_that_failed_and_then_succeeded_is_no_aborted_read() -> None:
    assert values(aborted_read, op(WRITE, outcome=FAIL), op(DELIVER), op(WRITE)) == []


def test_a_second_attempt_refused_as_done_does_not_abort_the_first() -> None:
    again = [op(WRITE, outcome=INVOKE), op(WRITE, outcome=FAIL)]
    assert values(aborted_read, op(WRITE), *again, op(DELIVER)) == []
    assert values(aborted_read, op(WRITE, outcome=UNKNOWN), *again, op(DELIVER)) == []


def test_every_delivery_of_an_aborted_event_counts() -> None:
    assert (
        values(aborted_read, op(WRITE, outcome=FAIL), op(DELIVER, process="a"), op(DELIVER, process="b")) == ["e1"] * 2
    )


def test_an_event_that_nobody_wrote_is_a_phantom() -> None:
    assert values(phantom, op(DELIVER)) == ["e1"]


def test_a_delivery_before_the_write_is_known_is_no_phantom() -> None:
    assert values(phantom, op(DELIVER), op(WRITE, outcome=INVOKE), op(WRITE)) == []


def test_a_write_in_doubt_is_a_phantom_only_if_the_final_read_did_not_find_it() -> None:
    ops = [op(WRITE, outcome=INVOKE), op(DELIVER)]
    assert values(phantom, *ops) == []
    assert values(phantom, *ops, op(READ)) == []
    assert values(phantom, *ops, op(READ, "")) == ["e1"]


def test_a_final_read_that_failed_makes_no_phantoms() -> None:
    assert values(phantom, op(WRITE, outcome=INVOKE), op(DELIVER), op(READ, "", INVOKE), op(READ, "", FAIL)) == []


# all of them


def test_an_empty_history_has_every_kind_and_nothing_of_it() -> None:
    assert check(history()) == {kind: [] for kind in Kind}


def test_an_anomaly_says_what_who_and_when() -> None:
    [anomaly] = lost(history(op(DELIVER, "x"), op(WRITE, key="order-1", process="shop")))
    assert (anomaly.kind, anomaly.value, anomaly.key, anomaly.process, anomaly.at) == (
        Kind.LOST, "e1", "order-1", "shop", 2,
    )  # fmt: skip
    assert anomaly.detail == "committed, never delivered"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_checker_whose_anomalies_are_of_that_kind(kind: Kind) -> None:
    bad = history(
        op(WRITE, "gone"), op(WRITE, "refused", outcome=FAIL), sent(1, "known"),
        *numbered("a", 2, 1), at(0), at(2), at(0), op(DELIVER, "refused"), op(EFFECT), op(EFFECT),
    )  # fmt: skip
    assert {anomaly.kind for anomaly in CHECKERS[kind](bad)} == {kind}
