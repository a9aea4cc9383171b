"""A saga as data: what is checked, and how long to pause."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from saga.orchestrator.definition import Definition, DefinitionError, Retry, decode, encode, load, read
from saga.order import STEPS, UNDO

Raw = Mapping[str, object]
PLACE = {"action": "place-order", "undo": "cancel-order"}
RESERVE = {"action": "reserve-stock", "undo": "release-stock"}
SHIP = {"action": "ship-order", "undo": "recall-shipment"}


def problems(*steps: Raw, **more: object) -> tuple[str, ...]:
    with pytest.raises(DefinitionError) as caught:
        load({"name": "test", "steps": list(steps), **more})
    return caught.value.problems


def actions(*steps: Raw) -> list[str]:
    return [step.action for step in load({"name": "test", "steps": list(steps)}).steps]


def test_the_order_saga_does_every_step_and_can_undo_it() -> None:
    assert [(step.action, step.undo) for step in read().steps] == [(step, UNDO[step]) for step in STEPS]


def test_it_is_kept_as_json_and_comes_back_the_same() -> None:
    assert decode(encode(read())) == read()
    assert isinstance(decode(encode(read())), Definition)


def test_steps_come_after_those_that_they_wait_for_and_otherwise_as_listed() -> None:
    assert actions({**PLACE, "after": ["ship-order"]}, RESERVE, SHIP) == ["reserve-stock", "ship-order", "place-order"]
    assert actions(SHIP, PLACE, {**RESERVE, "after": ["place-order"]}) == ["ship-order", "place-order", "reserve-stock"]


def test_a_step_that_needs_a_compensation_and_has_none_is_an_error() -> None:
    assert problems({"action": "ship-order"}) == ("ship-order has to be undone and nothing undoes it",)
    assert actions({"action": "ship-order", "compensable": False}) == ["ship-order"]


def test_a_cycle_is_an_error_that_shows_it() -> None:
    [problem] = problems({**PLACE, "after": ["ship-order"]}, {**SHIP, "after": ["place-order"]})
    assert problem.startswith("its steps wait for each other: ")
    assert "place-order -> ship-order -> place-order" in problem or "ship-order -> place-order" in problem


def test_everything_that_is_wrong_is_named_at_once() -> None:
    found = problems({"action": "fly"}, PLACE, PLACE, {**SHIP, "after": ["charge-payment"]}, timeout=-1)
    assert len(found) == 5
    assert [text.partition(":")[0] for text in found[:2]] == ["step 1", "place-order is there 2 times"]
    assert "ship-order comes after charge-payment, which is no step" in found


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({"name": "test"}, "it has no steps"),
        ({"name": "test", "steps": {}}, "it has no steps"),
        ({"name": "", "steps": [PLACE]}, "length >= 1"),
        ({"steps": [PLACE]}, "`name`"),
        ({"name": "test", "steps": [{**PLACE, "retry": {"attempts": 0}}]}, ">= 1"),
        ({"name": "test", "steps": [{**PLACE, "tiemout": 3}]}, "tiemout"),
        ({"name": "test", "steps": [{**PLACE, "compensable": False}]}, "not compensable and yet undone"),
    ],
)
def test_what_is_not_a_definition_is_a_clear_error(data: Raw, what: str) -> None:
    with pytest.raises(DefinitionError, match=what):
        load(data)


def test_bytes_that_are_no_definition_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(DefinitionError, match=r"bad\.toml"):
        read(tmp_path / "bad.toml")
    with pytest.raises(DefinitionError):
        decode(b"[]")


def test_pauses_grow_are_capped_and_spread() -> None:
    retry = Retry(first=0.1, factor=2.0, longest=1.0, jitter=0.5)
    pauses = [[retry.pause(attempt, f"saga {number}") for number in range(50)] for attempt in (1, 3, 10_000)]
    assert [
        max(0.0, min(some)) >= whole / 2 and max(some) <= whole
        for some, whole in zip(pauses, (0.1, 0.4, 1.0), strict=True)
    ]
    assert all(len(set(some)) == 50 for some in pauses)
    assert Retry(jitter=0.0).pause(1, "any") == 0.1
