"""The judge finds what is wrong: states made by hand, each wrong in one way."""

import pytest
from saga.order import STEPS, UNDO, Action, Order, Request
from saga.services.invariant import Ending, judge
from saga.services.shop import Services
from saga.stage.fates import FatedShop

from shared.postgres import connect

CHANGES = {
    "money lost": ("payments", "update accounts set cents = cents - 1 where customer = 'customer-003'"),
    "charged twice": ("payments", "update charges set charged = 2"),
    "refunded unduly": ("payments", "update charges set refunded = 1"),
    "account gone": ("payments", "delete from accounts where customer = 'customer-003'"),
    "money from nowhere": ("payments", "insert into accounts values ('stranger', 1)"),
    "pieces lost": ("stock", "update products set pieces = pieces - 1 where name = 'product-00'"),
    "not shipped": ("shipping", "delete from shipments"),
    "shipped and recalled": ("shipping", "update shipments set status = 'recalled'"),
    "fewer pieces than ordered": ("stock", "update reservations set quantity = quantity + 1"),
    "another product than ordered": ("stock", "update reservations set product = 'product-07'"),
    "another sum than ordered": ("payments", "update charges set cents = cents - 1"),
    "another customer than ordered": ("payments", "update charges set customer = 'customer-007'"),
    "cancelled alone": ("orders", "update orders set status = 'cancelled'"),
}


@pytest.fixture
def complete(services: Services, order: Order) -> Order:
    """An order that is complete everywhere."""
    for action in STEPS:
        services(Request(order.id, action, order))
    return order


def undo(services: Services, order: Order, but: Action) -> None:
    for action in (UNDO[step] for step in reversed(STEPS)):
        if action is not but:
            services(Request(order.id, action, order))


def change(shop: FatedShop, name: str) -> None:
    service, statement = CHANGES[name]
    with connect(shop.conninfos[service]) as connection:
        assert connection.execute(statement).rowcount > 0


def test_a_complete_order_is_right(complete: Order, shop: FatedShop) -> None:
    standing = judge(shop)
    assert (standing.endings, standing.violations) == ({complete.id: Ending.COMPLETE}, [])
    assert standing.count(Ending.COMPLETE) == 1


@pytest.mark.parametrize("steps", range(5))
def test_an_order_that_is_undone_as_far_as_it_went_is_right(
    steps: int, services: Services, shop: FatedShop, order: Order
) -> None:
    for action in (*STEPS[:steps], *(UNDO[step] for step in reversed(STEPS[:steps]))):
        services(Request(order.id, action, order))
    standing = judge(shop)
    assert (standing.count(Ending.COMPENSATED), standing.violations) == (min(steps, 1), [])


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_wrong_in_one_service_is_found(name: str, complete: Order, shop: FatedShop) -> None:
    change(shop, name)
    assert judge(shop).violations != []


def test_pieces_and_money_of_another_order_are_found_though_the_books_agree(
    complete: Order, services: Services, shop: FatedShop
) -> None:
    stock, payments = services.connections["stock"], services.connections["payments"]
    stock.execute("update reservations set quantity = quantity + 1")
    stock.execute("update products set pieces = pieces - 1 where name = %s", [complete.product])
    payments.execute("update charges set cents = cents + 1")
    payments.execute("update accounts set cents = cents - 1 where customer = %s", [complete.customer])
    assert [said.partition(", but ")[0] for said in judge(shop).violations] == [
        f"{complete.id}: ['{complete.product}', {complete.quantity + 1}] in stock",
        f"{complete.id}: ['{complete.customer}', {complete.cents + 1}] in payments",
    ]


@pytest.mark.parametrize("missing", [Action.CANCEL, Action.RELEASE, Action.REFUND, Action.RECALL])
def test_a_compensation_that_was_left_out_is_found(
    missing: Action, complete: Order, services: Services, shop: FatedShop
) -> None:
    undo(services, complete, but=missing)
    [violation] = judge(shop).violations
    assert violation.startswith(f"{complete.id}: orders ")


def test_a_refund_into_another_customers_account_is_found(complete: Order, services: Services, shop: FatedShop) -> None:
    undo(services, complete, but=Action.REFUND)
    payments = services.connections["payments"]
    payments.execute("update charges set status = 'refunded', refunded = 1")
    payments.execute("update accounts set cents = cents + %s where customer = 'customer-007'", [complete.cents])
    standing, balance = judge(shop), shop.world.balance
    assert standing.endings == {complete.id: Ending.COMPENSATED}
    assert standing.violations == [
        f"money: customer-007 has {balance + complete.cents} and gave 0, not {balance} together",
        f"money: customer-012 has {balance - complete.cents} and gave 0, not {balance} together",
    ]


def test_pieces_released_to_another_product_are_found(complete: Order, services: Services, shop: FatedShop) -> None:
    undo(services, complete, but=Action.RELEASE)
    stock = services.connections["stock"]
    stock.execute("update reservations set status = 'released'")
    stock.execute("update products set pieces = pieces + %s where name = 'product-04'", [complete.quantity])
    standing = judge(shop)
    assert standing.endings == {complete.id: Ending.COMPENSATED}
    assert [text.partition(" has ")[0] for text in standing.violations] == ["stock: product-00", "stock: product-04"]
