"""Several services at the same orders, and a relay that is killed: every relay that claims order keeps it."""

import pytest
from outbox.stage.contended import Shape
from outbox.stage.processes import Shop
from outbox.stage.schedules import TRANSACTIONS, Plan, contend, schedule
from outbox.windows import RelayWindow

from shared.faults import Kill

IN_ORDER = "row by row", "batch delete", "publish, then mark", "cursor", "log"
SHAPES = Shape.UPDATE_FIRST, Shape.AUDIT_FIRST


@pytest.mark.fault
@pytest.mark.parametrize("kind", IN_ORDER)
@pytest.mark.parametrize("window", RelayWindow)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_killed_anywhere_it_loses_nothing_and_keeps_the_order_of_shared_orders(
    kind: str, window: RelayWindow, shape: Shape, shop_with_slot: Shop
) -> None:
    """While an unrelated transaction is open."""
    nth = 1 if kind == "log" else 2  # it may have all that is there in one step
    found = contend(shop_with_slot, Plan(kind, Kill(window, nth), shape, seed=7))
    assert TRANSACTIONS // 2 < found.written < TRANSACTIONS  # some were rolled back
    assert (found.lost, found.reordered, found.phantom, found.outside) == (0, 0, 0, 0)
    if window in (RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK):
        assert found.doubled > 0  # the broker had them, and nobody had noted it


@pytest.mark.fault
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schedule_of_a_seed_loses_nothing_keeps_the_order_and_doubles_in_its_window_only(
    seed: int, shop: Shop
) -> None:
    found = schedule(shop, seed)
    assert found.written > TRANSACTIONS // 2
    assert (found.lost, found.reordered, found.phantom, found.outside) == (0, 0, 0, 0)
