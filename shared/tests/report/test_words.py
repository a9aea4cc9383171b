"""Numbers and names as the pages print them."""

import pytest

from shared.report.words import file_name, lasting, listed, number, spoken


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567.4, "1,234,567"),
        (12.345, "12.3"),
        (0.00012345, "0.000123"),
        (-0.5, "-0.5"),
        (1e-7, "0.0000001"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2 s"), (125, "2 min 5 s")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert lasting(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists_read_as_sentences(parts: list[str], text: str) -> None:
    assert listed(parts) == text


def test_file_names_are_plain_and_distinct() -> None:
    assert file_name("run", "outbox-pattern", "04_kill") == "run--outbox-pattern--04_kill.html"
    assert file_name("a/b") != file_name("a b")
    assert "/" not in file_name("../../x")


def test_a_script_name_is_spoken_without_its_number() -> None:
    assert spoken("04_kill_the_relay") == "Kill the relay"
