"""Flows, put together from machines and drawn from events; good ones, and bad ones made by hand."""

from dataclasses import replace

import pytest
from saga.choreography.flow import Arrow, Wrong, declared, problems, recorded
from saga.choreography.machine import MACHINES, SUBMITTED, Machine, MachineError, Reaction
from saga.order import Action
from saga.stage.changes import FORGOTTEN, LOOPING, WITH_FRAUD

from shared.event import Event


def chain(*types: str, saga: str = "a") -> list[Event]:
    """Events each of which caused the next."""
    events: list[Event] = []
    for number, kind in enumerate(types):
        cause = events[-1].id if events else ""
        ident = f"{saga}{number}"
        events.append(Event(kind, "/shop", id=ident, correlation_id=saga, causation_id=cause))
    return events


HAPPY = chain(SUBMITTED, "orders.placed", "stock.reserved", "payments.charged", "shipping.shipped", "orders.completed")


def test_good_flow_has_no_problems_whatever_the_order_of_its_events() -> None:
    assert problems([*reversed(HAPPY), *HAPPY]) == []
    assert recorded(HAPPY).arrows[Arrow("orders.placed", "stock", "stock.reserved")] == 1


def test_cycle_is_found_and_named() -> None:
    [found] = problems(chain(SUBMITTED, "a.asked", "b.answered", "a.asked", "orders.completed"))
    assert found.wrong is Wrong.CYCLE
    assert set(found.detail.split(" -> ")) == {"a.asked", "b.answered"}


def test_event_that_nobody_handles_is_an_orphan() -> None:
    [found] = problems([*HAPPY, *chain(SUBMITTED, "orders.placed", "stock.lost", saga="b")])
    assert (found.wrong, found.event) == (Wrong.ORPHAN, "b2")
    assert "stock.lost" in found.detail


@pytest.mark.parametrize("cause", ["gone", ""])
def test_event_whose_cause_is_not_there_is_found(cause: str) -> None:
    broken = replace(HAPPY[2], causation_id=cause)
    found = problems([*HAPPY[:2], broken, *HAPPY[3:]])
    assert [(one.wrong, one.event) for one in found] == [(Wrong.CAUSATION, "a2"), (Wrong.ORPHAN, "a1")]


def test_event_of_another_saga_than_its_cause_is_found() -> None:
    [found] = problems([*HAPPY[:5], replace(HAPPY[5], correlation_id="b")])
    assert (found.wrong, found.event) == (Wrong.CORRELATION, "a5")


def test_the_order_saga_has_no_cycle_no_orphan_and_five_paths() -> None:
    flow = declared(MACHINES)
    assert (flow.cycle(), flow.orphans()) == ((), set())
    ends = sorted(path[-1].said for path in flow.paths())
    assert ends == ["orders.cancelled"] * 3 + ["orders.completed", "orders.refused"]


def test_cycle_is_in_the_machines_before_it_runs() -> None:
    assert set(declared(LOOPING).cycle()) == {"stock.held", "payments.refused"}


def test_forgotten_change_leaves_an_orphan() -> None:
    assert declared(FORGOTTEN).orphans() == {"fraud.suspected"}
    assert declared(WITH_FRAUD).orphans() == set()


def test_drawings_have_every_message_once() -> None:
    flow = recorded(HAPPY)
    assert flow.mermaid().splitlines()[0] == "flowchart LR"
    assert "    orders -- orders.placed --> stock" in flow.mermaid().splitlines()
    assert flow.dot().count("->") == flow.mermaid().count("-->") == len(flow.messages) == len(HAPPY)


def test_machine_that_cannot_be_meant_says_all_that_is_wrong() -> None:
    reactions = (
        Reaction("orders.placed", "stock.reserved", Action.RESERVE),
        Reaction("orders.placed", "orders.done", Action.CHARGE, "stock.refused"),
    )
    with pytest.raises(MachineError) as caught:
        Machine("stock", reactions)
    wrong = "can be refused", "two reactions to orders.placed", "says orders.done", "charge-payment is done by payments"
    assert len(caught.value.problems) == len(wrong)
    assert all(text in str(caught.value) for text in wrong)
