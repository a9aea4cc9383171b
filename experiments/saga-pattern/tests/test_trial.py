"""What a trial judges by: histories that are right, and bad ones that it has to see through."""

import pytest
from saga.order import STEPS, Action
from saga.stage.orchestrator import in_order, out_of_order

from shared.history import Action as Did
from shared.history import History, Op, Outcome

PLACE, RESERVE, CHARGE, SHIP = STEPS
CANCEL, RELEASE, REFUND, RECALL = Action.CANCEL, Action.RELEASE, Action.REFUND, Action.RECALL


@pytest.mark.parametrize(
    ("commands", "done", "compensated"),
    [
        (STEPS, STEPS, False),
        ((PLACE, RESERVE, CHARGE, RELEASE, CANCEL), (PLACE, RESERVE), True),  # charging was refused
        ((PLACE, RESERVE, CHARGE, REFUND, RELEASE, CANCEL), (PLACE, RESERVE), True),  # or nobody knew
        ((PLACE, RESERVE, RELEASE, CANCEL), (PLACE, RESERVE), True),  # given up, or an operator's decision
        ((PLACE,), (), True),
    ],
)
def test_what_is_begun_in_order_and_undone_in_reverse_is_right(
    commands: tuple[Action, ...], done: tuple[Action, ...], compensated: bool
) -> None:
    assert in_order(commands, done, compensated)


@pytest.mark.parametrize(
    ("commands", "done", "compensated"),
    [
        ((PLACE, CHARGE, RESERVE, SHIP), STEPS, False),  # another order
        ((PLACE, RESERVE, CANCEL, CHARGE, SHIP), STEPS, False),  # undone in between
        ((PLACE, RESERVE, CHARGE), (PLACE, RESERVE, CHARGE), False),  # complete without its last step
        ((*STEPS, RECALL, REFUND, RELEASE, CANCEL), STEPS, False),  # complete, and undone
        ((PLACE, RESERVE, CHARGE, CANCEL, RELEASE), (PLACE, RESERVE), True),  # undone in the order of the steps
        ((PLACE, RESERVE, CHARGE, CANCEL), (PLACE, RESERVE), True),  # a compensation left out
        ((PLACE, RESERVE, CHARGE, RELEASE), (PLACE, RESERVE), True),  # the last one left out
        ((PLACE, RESERVE, CHARGE, RELEASE, CANCEL), (PLACE, RESERVE, CHARGE), True),  # done, and not undone
        ((PLACE, RESERVE, REFUND, RELEASE, CANCEL), (PLACE, RESERVE), True),  # never begun, and undone
        ((), (), True),
    ],
)
def test_another_order_or_a_compensation_left_out_is_seen(
    commands: tuple[Action, ...], done: tuple[Action, ...], compensated: bool
) -> None:
    assert not in_order(commands, done, compensated)


def history(*commands: str, done: tuple[str, ...]) -> History:
    """Of the saga `s`: commands as they are delivered, with their attempts, each answered; then the effects."""
    read = [name for command in commands for name in (f"s:{command}", f"s:{command}/answer")]
    ops = [Op(at, "host", Did.DELIVER, Outcome.OK, name, "s") for at, name in enumerate(read)]
    return History([*ops, *(Op(99, "host", Did.EFFECT, Outcome.OK, f"s:{name}", "s") for name in done)])


def test_the_order_is_that_in_which_services_first_read_the_commands() -> None:
    two = "place-order", "reserve-stock"
    again = "place-order#1", "reserve-stock#1", "place-order#1", "reserve-stock#2"
    right = history(*again, "release-stock#1", "cancel-order#1", done=two)
    wrong = history(*again, "cancel-order#1", "release-stock#1", "cancel-order#2", done=two)
    left_out = history(*again, "cancel-order#1", done=two)
    found = [out_of_order(one, {"s": True}) for one in (right, wrong, left_out)]
    assert found == [[], ["s"], ["s"]]
