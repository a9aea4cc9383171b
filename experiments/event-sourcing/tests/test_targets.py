"""The benchmark's arithmetic: what it calls reached, and what it calls missed."""

from pathlib import Path

import pytest
from sourcing.benching import in_turn, wrongly_seen
from sourcing.contenders import balance, new_events
from sourcing.targets import TARGETS, claim_targets, taught

from shared.output import Output
from shared.run import Run, Scale
from shared.servers.stack import Stack
from shared.settings import Settings

COUNTS = {"a": 3, "b": 2}
IN_ORDER = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]


@pytest.fixture
def run(tmp_path: Path, settings: Settings) -> Run:
    return Run(tmp_path / "lab" / "run", Stack(settings), {}, Scale.SMOKE, 1, Output(silent=True))


def measure(run: Run, **others: float) -> dict[str, bool]:
    """Claim all targets on figures that just reach them, but for `others`; returns claims by their fact's figure."""
    for name, (_, bound, _) in TARGETS.items():
        run.figure(name, others.get(name, bound), "x")
    claim_targets(run)
    return {claim.fact.split()[0]: claim.holds for claim in run.claims}


def test_a_figure_on_its_bound_reaches_the_target(run: Run) -> None:
    assert measure(run) == dict.fromkeys(TARGETS, True)


@pytest.mark.parametrize("name", TARGETS)
def test_a_figure_beyond_its_bound_falls_short_and_no_other_does(run: Run, name: str) -> None:
    sign, bound, _ = TARGETS[name]
    claims = measure(run, **{name: bound - 0.01 if sign == ">=" else bound + 1})
    assert [short for short, holds in claims.items() if not holds] == [name]


def test_the_help_names_every_target_with_its_bound() -> None:
    assert all(f"{name} {sign} {bound:g}" in taught() for name, (sign, bound, _) in TARGETS.items())


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
