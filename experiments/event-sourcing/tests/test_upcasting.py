"""Old events read as current ones, and chains that lead nowhere are found before the first event."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sourcing.errors import MissingUpcaster, SchemaMismatch, UndecodablePayload, UnknownEventType, UnreadableEvent
from sourcing.event import Data, NewEvent, Recorded
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.evolved import EvolvedOrder, cents_of, upcasters, upcasters_of_2021
from sourcing.stage.generations import sales
from sourcing.upcasting import BrokenChain, Upcasters

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stored(type_: str, version: int, data: Data | bytes) -> Recorded:
    raw = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return Recorded("order-1", 7, type_, version, raw, b"{}", "", 0, 1, NOW)


def read(type_: str, version: int, data: Data) -> list[tuple[str, Data]]:
    return list(upcasters()(stored(type_, version, data)))


class Strange(Exception):
    """Of nobody's hierarchy."""


def renamed(data: Data) -> Data:
    return data


def test_a_chain_goes_over_every_version() -> None:
    line = {"product": "tea", "quantity": 2, "price": 19.99}
    current = {"product": "tea", "quantity": 2, "cents": 1999, "currency": "EUR"}
    assert read("LineAdded", 1, line) == [("LineAdded", current)]


def test_a_type_is_renamed() -> None:
    assert read("OrderCreated", 1, {"customer": "c"}) == [("OrderPlaced", {"customer": "c"})]


def test_one_event_becomes_two_in_their_order_and_the_chain_goes_on_from_each() -> None:
    expected = [("OrderPaid", {"cents": 3998, "currency": "EUR"}), ("OrderShipped", {"carrier": "DHL"})]
    assert read("OrderPaidAndShipped", 1, {"price": 39.98, "carrier": "DHL"}) == expected


def test_an_event_without_meaning_is_dropped() -> None:
    assert read("OrderViewed", 1, {"page": "/"}) == []


def test_a_current_event_takes_no_step() -> None:
    steps = upcasters()
    data = {"anything": 1}
    assert list(steps(stored("LineAdded", 3, data))) == [("LineAdded", data)]
    assert steps.taken == 0


@given(st.integers(1, 10**9))
def test_every_price_in_euros_is_the_cents_that_it_was_made_of(cents: int) -> None:
    assert cents_of(cents / 100) == cents


@pytest.mark.parametrize(
    ("event", "error", "problem"),
    [
        (stored("OrderLost", 1, {}), UnknownEventType, "this program does not know 'OrderLost' v1"),
        (stored("LineAdded", 4, {}), MissingUpcaster, "schema version 4 is newer than 3, the newest that this program"),
        (stored("OrderCreated", 2, {}), MissingUpcaster, "no step begins at 'OrderCreated' v2"),
        (stored("LineAdded", 0, {}), MissingUpcaster, "no step begins at 'LineAdded' v0"),
        (stored("LineAdded", 1, {"quantity": 1}), SchemaMismatch, "the step from 'LineAdded' v1 failed: KeyError"),
        (stored("LineAdded", 1, b"{"), UndecodablePayload, "the data is not a JSON object"),
        (stored("LineAdded", 3, b"[]"), UndecodablePayload, "the data is not a JSON object"),
    ],
    ids=lambda value: value.type if isinstance(value, Recorded) else None,
)
def test_what_cannot_be_read_is_named(event: Recorded, error: type[UnreadableEvent], problem: str) -> None:
    with pytest.raises(error, match=f"event 7 of stream 'order-1', type '{event.type}'") as caught:
        list(upcasters()(event))
    assert problem in str(caught.value)


def test_a_step_may_only_make_what_it_declares() -> None:
    steps = Upcasters({"A": 2})
    steps.split("A", 1, into={"A": 2})(lambda data: [("B", data)])
    with pytest.raises(MissingUpcaster, match="which it does not declare"):
        steps(stored("A", 1, {}))


def test_the_old_program_says_that_an_event_is_too_new_for_it() -> None:
    with pytest.raises(MissingUpcaster, match="deploy readers before writers"):
        upcasters_of_2021()(stored("LineAdded", 3, {}))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_hole_in_a_chain_is_found_at_start_up(missing: int) -> None:
    steps = Upcasters({"LineAdded": 4})
    for version in {1, 2, 3} - {missing}:
        steps.step("LineAdded", version)(renamed)
    with pytest.raises(BrokenChain, match=f"no step begins at 'LineAdded' v{missing}"):
        steps.check()


def test_a_dead_end_is_found_at_start_up() -> None:
    steps = Upcasters({"B": 1})
    steps.step("A", 1, to=("C", 1))(renamed)
    with pytest.raises(BrokenChain, match="'A' v1 leads to 'C' v1, where nothing begins"):
        steps.check()


def test_a_circle_is_found_at_start_up() -> None:
    steps = Upcasters({"C": 1})
    steps.step("A", 1, to=("B", 1))(renamed)
    steps.step("B", 1, to=("A", 1))(renamed)
    with pytest.raises(BrokenChain, match="in a circle: 'A' v1 -> 'B' v1"):
        steps.check()


def test_a_step_beyond_the_current_version_is_found_at_start_up() -> None:
    steps = Upcasters({"A": 1})
    steps.step("A", 1)(renamed)
    with pytest.raises(BrokenChain, match="a step begins at 'A' v1, and the current version is 1"):
        steps.check()


def test_two_steps_from_one_version_are_refused() -> None:
    steps = Upcasters({"A": 2})
    steps.step("A", 1)(renamed)
    with pytest.raises(BrokenChain, match="two steps begin at 'A' v1"):
        steps.drop("A", 1)


def test_an_aggregate_that_writes_another_version_than_the_steps_end_at_is_found_at_start_up() -> None:
    with pytest.raises(BrokenChain, match="'LineAdded' is written as version 3, and the steps end at 2"):
        upcasters_of_2021().check(EvolvedOrder)


def test_three_generations_of_events_fold_to_what_was_sold(store: PostgresStore) -> None:
    sold = sales(seed=7, count=12, lines=4)
    for sale, events in sold:
        store.append(sale.stream, events, 0)
    repository = Repository(store, EvolvedOrder, upcasters())
    assert [repository.load(sale.id).state() for sale, _ in sold] == [sale.state for sale, _ in sold]


def test_an_order_of_the_past_goes_on_in_the_present(store: PostgresStore) -> None:
    [(sale, events), *_] = sales(seed=7, count=1, lines=2)
    store.append(sale.stream, events[:-1], 0)
    repository = Repository(store, EvolvedOrder, upcasters())
    order = repository.execute(sale.id, lambda order: order.pay())
    assert order.paid == sale.total
    assert [event.schema_version for event in store.read(sale.stream)][-1] == 2


def in_place(data: Data) -> None:
    data["cents"] = cents_of(data.pop("price"))


def of_two_minds(data: Data) -> Data | None:
    return data if "price" in data else None


def early(data: Data) -> None:
    if "price" not in data:
        return
    in_place(data)


def fails(data: Data) -> Data:
    raise Strange("x")


@pytest.mark.parametrize("step", [in_place, early])
def test_a_step_that_returns_nothing_is_found_at_start_up(step: Any) -> None:
    steps = Upcasters({"A": 2})
    steps.step("A", 1)(step)
    with pytest.raises(BrokenChain, match="the step from 'A' v1 returns nothing"):
        steps.check()


@pytest.mark.parametrize("step", [of_two_minds, renamed, dict, lambda data: data], ids=["two", "one", "dict", "lambda"])
def test_a_step_that_returns_something_somewhere_is_no_matter_for_the_start(step: Any) -> None:
    steps = Upcasters({"A": 2})
    steps.step("A", 1)(step)
    steps.check()


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (in_place, "returned NoneType, and not the data of an event"),
        (lambda data: [data], "returned list, and not"),
        (lambda data: data["x"]["y"], "failed: KeyError"),
        (lambda data: data["price"].cents, "failed: AttributeError"),
        (lambda data: 1 // (data["price"] - data["price"]), "failed: ZeroDivisionError"),
        (fails, "failed: Strange"),
    ],
    ids=["None", "a list", "KeyError", "AttributeError", "ZeroDivisionError", "its own error"],
)
def test_an_event_that_a_step_makes_nothing_of_names_itself_and_the_step(step: Any, problem: str) -> None:
    steps = Upcasters({"A": 2})
    steps.step("A", 1)(step)
    with pytest.raises(SchemaMismatch, match="event 7 of stream 'order-1', type 'A': the step from 'A' v1") as caught:
        steps(stored("A", 1, {"price": 2}))
    assert problem in str(caught.value)


@pytest.mark.parametrize("made", [None, [None], ["A"], [("A", None)], [({}, {})]], ids=repr)
def test_whatever_else_a_split_makes_names_the_event_too(made: Any) -> None:
    steps = Upcasters({"A": 2})
    steps.split("A", 1, into={"A": 2})(lambda data: made)
    with pytest.raises(UnreadableEvent, match="event 7 of stream 'order-1', type 'A': the step from 'A' v1"):
        steps(stored("A", 1, {}))


def test_a_circle_that_nobody_checked_names_the_event(store: PostgresStore) -> None:
    steps = Upcasters({"LineAdded": 1})
    steps.step("A", 1, to=("B", 1))(renamed)
    steps.step("B", 1, to=("A", 1))(renamed)
    store.append("order-1", [NewEvent("A", {})])
    with pytest.raises(UnreadableEvent, match="event 1 of stream 'order-1', type 'A'"):
        Repository(store, EvolvedOrder, steps).load("1")
