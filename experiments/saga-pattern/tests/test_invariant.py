"""The judge finds what is wrong: states made by hand, each wrong in one way."""

import pytest
from saga.invariant import Ending, judge
from saga.order import STEPS, UNDO, Action, Order, Request
from saga.services.shop import Services, Shop

from shared.postgres import connect

CHANGES = {
    "money lost": ("payments", "update accounts set cents = cents - 1 where customer = 'customer-003'"),
    "charged twice": ("payments", "update charges set charged = 2"),
    "refunded unduly": ("payments", "update charges set refunded = 1"),
    "pieces lost": ("stock", "update products set pieces = pieces - 1 where name = 'product-00'"),
    "not shipped": ("shipping", "delete from shipments"),
    "shipped and recalled": ("shipping", "update shipments set status = 'recalled'"),
    "cancelled alone": ("orders", "update orders set status = 'cancelled'"),
}


@pytest.fixture
def complete(services: Services, order: Order) -> Order:
    """An order that is complete everywhere."""
    for action in STEPS:
        services(Request(order.id, action, order))
    return order


def change(shop: Shop, name: str) -> None:
    service, statement = CHANGES[name]
    with connect(shop.conninfos[service]) as connection:
        assert connection.execute(statement).rowcount > 0


def test_a_complete_order_is_right(complete: Order, shop: Shop) -> None:
    standing = judge(shop)
    assert (standing.endings, standing.violations) == ({complete.id: Ending.COMPLETE}, [])
    assert standing.count(Ending.COMPLETE) == 1


@pytest.mark.parametrize("steps", range(5))
def test_an_order_that_is_undone_as_far_as_it_went_is_right(
    steps: int, services: Services, shop: Shop, order: Order
) -> None:
    for action in (*STEPS[:steps], *(UNDO[step] for step in reversed(STEPS[:steps]))):
        services(Request(order.id, action, order))
    standing = judge(shop)
    assert (standing.count(Ending.COMPENSATED), standing.violations) == (min(steps, 1), [])


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_wrong_in_one_service_is_found(name: str, complete: Order, shop: Shop) -> None:
    change(shop, name)
    assert judge(shop).violations != []


@pytest.mark.parametrize("missing", [Action.CANCEL, Action.RELEASE, Action.REFUND, Action.RECALL])
def test_a_compensation_that_was_left_out_is_found(
    missing: Action, complete: Order, services: Services, shop: Shop
) -> None:
    for action in (UNDO[step] for step in reversed(STEPS)):
        if action is not missing:
            services(Request(complete.id, action, complete))
    [violation] = judge(shop).violations
    assert violation.startswith(f"{complete.id}: orders ")
