"""Skipped and backwards: what the offsets of a reader's polls say, and what they do not."""

from shared.checkers import backwards, skipped
from shared.tests.histories import DELIVER, FAIL, FAULT, INVOKE, READ, UNKNOWN, WRITE, at, op, sent, values

# skipped


def test_a_jump_over_a_sent_record_is_a_skip() -> None:
    assert values(skipped, *map(sent, range(3)), at(0), at(2)) == ["e2"]


def test_a_jump_over_a_record_that_another_received_is_a_skip() -> None:
    assert values(skipped, at(1, process="other"), at(0), at(2)) == ["e2"]


def test_a_jump_over_an_offset_without_a_record_is_none() -> None:
    assert values(skipped, sent(0), sent(9), at(0), at(9)) == []


def test_where_a_reader_begins_is_its_own_affair() -> None:
    assert values(skipped, *map(sent, range(9)), at(5), at(6)) == []


def test_partitions_and_topics_have_offsets_of_their_own() -> None:
    assert values(skipped, sent(1), at(0), at(1, partition=1), at(1, topic="payments"), at(2, topic="payments")) == []


def test_a_jump_after_a_restart_is_a_skip() -> None:
    assert values(skipped, *map(sent, range(5)), at(0), op(FAULT, "", process="reader"), at(3)) == ["e3"]


def test_a_record_that_the_reader_refused_was_not_skipped() -> None:
    assert values(skipped, *map(sent, range(3)), at(0), at(1, outcome=FAIL), at(2)) == []


def test_a_record_that_another_reader_refused_is_a_record() -> None:
    assert values(skipped, at(1, "", "other", FAIL), at(0), at(2)) == ["e2"]


def test_a_partition_that_wanders_within_a_group_is_not_skipped() -> None:
    ops = at(0, process="one", group="g"), at(1, process="two", group="g"), at(2, process="one", group="g")
    assert values(skipped, *ops) == []
    assert values(skipped, sent(1), ops[0], ops[2]) == ["e2"]


def test_what_another_group_received_can_be_skipped() -> None:
    assert values(skipped, at(0, group="g"), at(1, process="two", group="h"), at(2, group="g")) == ["e2"]


def test_deliveries_without_an_offset_do_not_disturb() -> None:
    assert values(skipped, *map(sent, range(7)), at(5), op(DELIVER, "x", process="reader"), at(6)) == []
    nowhere = at(-1, "x")
    assert values(skipped, *map(sent, range(7)), at(5), nowhere, at(6)) == []


def test_records_of_an_aborted_transaction_are_no_records() -> None:
    aborted = [op(WRITE, "e1", INVOKE), sent(1), op(WRITE, "e1", FAIL)]
    assert values(skipped, *aborted, at(0), at(2)) == []
    assert values(skipped, sent(1), sent(1, outcome=FAIL), at(0), at(2)) == []


def test_records_of_a_transaction_in_doubt_count_once_the_final_read_found_them() -> None:
    doubtful = [op(WRITE, "e1", INVOKE), sent(1), op(WRITE, "e1", UNKNOWN), at(0), at(2)]
    assert values(skipped, *doubtful) == []
    assert values(skipped, *doubtful, op(READ)) == ["e2"]


def test_an_aborted_record_that_a_careless_reader_saw_is_not_skipped_by_a_careful_one() -> None:
    ops = sent(1), at(1, process="careless"), sent(1, outcome=FAIL), at(1, process="slow and careless")
    assert values(skipped, *ops, at(0), at(2)) == []


def test_a_record_sent_again_after_an_abort_is_one() -> None:
    ops = sent(1, "e1"), sent(1, "e1", FAIL), sent(3, "e1"), sent(4)
    assert values(skipped, *ops, at(0), at(4)) == ["e4"]
    assert values(skipped, *ops, at(0), at(3, "e1"), at(4)) == []


# backwards


def test_a_poll_below_what_was_reached_is_backwards() -> None:
    assert values(backwards, at(5), at(3), at(4), at(5)) == ["e3"]


def test_a_poll_of_the_same_offset_again_is_backwards() -> None:
    assert values(backwards, at(0), at(0)) == ["e0"]


def test_a_restart_under_the_same_name_shows_its_rewind() -> None:
    assert values(backwards, at(5), op(FAULT, "", process="reader", note="SIGKILL"), at(3)) == ["e3"]


def test_processes_partitions_and_topics_go_forward_by_themselves() -> None:
    elsewhere = at(3, process="other"), at(3, partition=1), at(3, topic="payments")
    assert values(backwards, at(5), *elsewhere, at(6)) == []


def test_without_offsets_nothing_goes_backwards() -> None:
    assert values(backwards, at(5), op(DELIVER), op(DELIVER), at(6)) == []
