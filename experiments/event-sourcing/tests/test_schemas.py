"""Weak schemas take what they get, strong ones say what is wrong with it."""

import pytest
from sourcing.errors import SchemaMismatch, UnknownEventType
from sourcing.event import Data, NewEvent
from sourcing.shop.evolved import STRONG, WEAK, EvolvedOrder, sample

LINE: Data = {"product": "tea", "quantity": 2, "cents": 500, "currency": "EUR"}
AT = "order-1", 7, "LineAdded"


@pytest.mark.parametrize(
    ("surprise", "problem"),
    [
        ({"cents": None}, "cents: Input should be a valid integer"),
        ({"quantity": "2"}, "quantity: Input should be a valid integer"),
        ({"quantity": 2.0}, "quantity: Input should be a valid integer"),
        ({"quantity": 0}, "quantity: Input should be greater than 0"),
        ({"gift": True}, "gift: Extra inputs are not permitted"),
    ],
)
def test_a_strong_schema_names_the_event_and_the_field(surprise: Data, problem: str) -> None:
    with pytest.raises(SchemaMismatch, match="event 7 of stream 'order-1', type 'LineAdded'") as caught:
        STRONG.shape(*AT, {**LINE, **surprise})
    assert caught.value.problem == problem


def test_a_strong_schema_names_every_field_that_is_wrong() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        STRONG.shape(*AT, {"product": "tea", "quantity": -1, "currency": "EUR"})
    assert {part.partition(":")[0] for part in caught.value.problem.split("; ")} == {"quantity", "cents"}


def test_a_weak_schema_fills_in_and_leaves_out() -> None:
    surprising = {"product": "tea", "quantity": 2, "gift": True}
    assert WEAK.shape(*AT, surprising) == {"product": "tea", "quantity": 2, "cents": 0, "currency": "EUR"}


def test_a_weak_schema_checks_no_type() -> None:
    assert WEAK.shape(*AT, {**LINE, "quantity": "2"})["quantity"] == "2"


def test_both_leave_a_good_event_as_it_is() -> None:
    assert STRONG.shape(*AT, LINE) == WEAK.shape(*AT, LINE) == LINE


@pytest.mark.parametrize("schema", [STRONG, WEAK], ids=["strong", "weak"])
def test_neither_passes_over_an_event_of_unknown_type(schema: object) -> None:
    with pytest.raises(UnknownEventType, match="event 7 of stream 'order-1', type 'LineLost'"):
        getattr(schema, "shape")("order-1", 7, "LineLost", {})  # noqa: B009


def test_the_door_lets_pass_what_the_aggregate_writes() -> None:
    events = sample()
    assert STRONG.admit("order-1", 0, events) == events
    assert {event.type: event.schema_version for event in events} == STRONG.versions == EvolvedOrder.schemas


def test_the_door_stops_the_second_event_and_says_which_it_would_have_been() -> None:
    events = [NewEvent("OrderPlaced", {"customer": "c"}), NewEvent("LineAdded", {**LINE, "gift": True}, 3)]
    with pytest.raises(SchemaMismatch, match="event 12 of stream 'order-1', type 'LineAdded': gift"):
        STRONG.admit("order-1", 10, events)


def test_the_door_stops_a_producer_of_an_old_version() -> None:
    with pytest.raises(SchemaMismatch, match="written as schema version 2, the current one is 3"):
        STRONG.admit("order-1", 0, [NewEvent("LineAdded", LINE, 2)])
