"""The trail says who, when and why, and leads over several streams back to what began it."""

import random
from dataclasses import replace

import pytest
from sourcing.audit import Step, causes, conversation, everything, following, step, trail
from sourcing.errors import UndecodablePayload
from sourcing.event import Metadata, NewEvent
from sourcing.postgres import PostgresStore
from sourcing.stage.shopping import CLERK, Shopping

from shared.postgres import Connection


@pytest.fixture
def shop(store: PostgresStore) -> Shopping:
    """Two visits: visit 0 is cancelled and paid back, visit 1 is shipped."""
    shopping = Shopping(store, random.Random(1))
    for number in range(2):
        shopping.visit(number)
    return shopping


def test_a_trail_has_every_event_with_who_when_and_why(shop: Shopping) -> None:
    steps = trail(shop.store, "order-0000")
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.complete for step in steps)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert (steps[-1].what, steps[-1].actor) == ("OrderCancelled", CLERK)


def test_a_conversation_goes_over_all_its_streams_and_no_others(shop: Shopping) -> None:
    steps = conversation(shop.store, "visit-0000")
    assert {step.stream for step in steps} == {"order-0000", "account-0000"}
    assert len(steps) == len(trail(shop.store, "order-0000")) + len(trail(shop.store, "account-0000"))


def test_a_refund_leads_back_to_the_request(shop: Shopping) -> None:
    steps = conversation(shop.store, "visit-0000")
    way = causes(steps, steps[-1])
    assert [step.what for step in way] == ["Deposited", "OrderCancelled", "OrderPaid"]
    assert way[-1].causation_id == "request-0000"


def test_a_forged_circle_of_causes_ends(shop: Shopping) -> None:
    first, second = trail(shop.store, "order-0000")[:2]
    circle = [replace(first, causation_id=second.id), replace(second, causation_id=first.id)]
    assert causes(circle, circle[0]) == circle


def test_a_step_without_an_actor_is_not_complete(store: PostgresStore) -> None:
    store.append("order-1", [NewEvent("OrderPlaced", {"customer": "1"}, metadata=Metadata("c", "r", "", "why"))])
    [only] = trail(store, "order-1")
    assert isinstance(only, Step)
    assert not only.complete


def test_what_follows_from_an_event_outside_of_any_conversation_begins_one(store: PostgresStore) -> None:
    store.append("order-1", [NewEvent("OrderPlaced", {"customer": "1"})])
    [event] = store.read("order-1")
    assert following(event, "clerk-1", "why") == Metadata(event.id, event.id, "clerk-1", "why")


def test_everything_is_read_over_many_pages(store: PostgresStore) -> None:
    events = [NewEvent("Deposited", {"cents": number}) for number in range(1, 2_502)]
    store.append("account-1", events)
    assert [step(event).data["cents"] for event in everything(store)] == list(range(1, 2_502))


def test_metadata_that_cannot_be_read_is_an_error(store: PostgresStore, connection: Connection) -> None:
    store.append("order-1", [NewEvent("OrderPlaced", {"customer": "1"})])
    connection.execute("update events set metadata = '{'")
    with pytest.raises(UndecodablePayload, match="event 1 of stream 'order-1', type 'OrderPlaced': the metadata"):
        trail(store, "order-1")
