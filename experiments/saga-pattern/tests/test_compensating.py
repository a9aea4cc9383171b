"""What is undone, how far, in which order, how often: the right way holds, and the popular one does not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from saga.lessons import compensating, returning
from saga.lessons.compensating import (
    GIFT,
    GivenUp,
    Went,
    answered,
    asked,
    asker,
    breaches,
    forward,
    insist,
    standing,
    undo,
)
from saga.lessons.redelivering import Guard, by_message, by_operation, by_state, unguarded
from saga.order import STEPS, Action, Order, Request, World, orders
from saga.services import shop as shops
from saga.services.effects import EFFECTS, Effect
from saga.services.invariant import judge
from saga.services.shop import Services
from saga.stage.compensation import ADD, enqueue, refunder
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.fates import create as create_shop
from saga.stage.foreign import odd
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow

from shared import codec
from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.worker import Worker

MADE = list(orders(7, 4, World()))
BACKWARDS, FORWARDS = STEPS[::-1], STEPS


def fated(shop: FatedShop, action: Action, fate: Fate, made: Iterable[Order] = MADE) -> FatedShop:
    return replace(shop, fates=Fates(steps={}, undos={}, fixed={(order.id, action): fate for order in made}))


def refunds(services: Services, order: Order) -> int:
    query = "select refunded from charges where order_id = %s"
    (times,) = services.connections["payments"].execute(query, [order.id]).fetchone() or (0,)
    return int(times)


# How far


def test_what_nobody_knows_of_is_undone_too_and_first() -> None:
    went = Went((Action.PLACE, Action.RESERVE), (Action.CHARGE,))
    assert asked(went) == (Action.CHARGE, Action.RESERVE, Action.PLACE)
    assert answered(went) == (Action.RESERVE, Action.PLACE)


@pytest.mark.parametrize(("which", "left"), [(answered, 4), (asked, 0)])
def test_a_step_whose_answer_is_lost_stays_done_where_only_answered_steps_are_undone(
    shop: FatedShop, which: Callable[[Went], tuple[Action, ...]], left: int
) -> None:
    with fated(shop, Action.CHARGE, Fate.ANSWER_LOST).open() as services:
        compensating.try_once(services, MADE, which)
    assert len(judge(shop).violations) == left


def test_a_refused_step_is_not_undone_and_all_before_it_are(shop: FatedShop) -> None:
    fixed = {(order.id, step): Fate.REFUSED for order, step in zip(MADE, STEPS, strict=True)}
    with replace(shop, fates=Fates(steps={}, undos={}, fixed=fixed)).open() as services:
        assert [compensating.try_once(services, [order], asked) for order in MADE] == [0, 1, 2, 3]
    assert judge(shop).violations == []


def test_a_step_that_never_answers_is_given_up_with_its_reason(shop: FatedShop, order: Order) -> None:
    with fated(shop, Action.CHARGE, Fate.BROKEN, [order]).open() as services:
        with pytest.raises(GivenUp, match="the service is broken, after 4 attempts"):
            insist(asker(services), Request(order.id, Action.CHARGE, order))
        assert forward(asker(services), order) == Went((Action.PLACE, Action.RESERVE), (Action.CHARGE,))


# In which order


def test_backwards_nothing_illegal_is_seen_and_in_the_order_of_the_steps_it_is(services: Services) -> None:
    for order in MADE[:2]:
        forward(asker(services), order)
    assert compensating.undo_watched(services, MADE[0], BACKWARDS) == set()
    assert "a cancelled order is on its way" in compensating.undo_watched(services, MADE[1], FORWARDS)


@pytest.mark.parametrize(("steps", "found"), [(FORWARDS, 4), (BACKWARDS, 0)])
def test_a_parcel_that_cannot_be_recalled_is_a_gift_if_the_recall_comes_last(
    shop: FatedShop, steps: tuple[Action, ...], found: int
) -> None:
    with fated(shop, Action.RECALL, Fate.BROKEN).open() as services:
        assert compensating.gifts(services, MADE, steps) == found


def test_the_rules_know_a_whole_order_and_an_undone_one_as_legal() -> None:
    whole = {"orders": "placed", "stock": "reserved", "payments": "charged", "shipping": "shipped"}
    undone = {"orders": "cancelled", "stock": "released", "payments": "refunded", "shipping": "recalled"}
    assert breaches(whole) == breaches(undone) == breaches({}) == set()
    assert breaches({**whole, "payments": "refunded"}) == {GIFT}


# And if it cannot be


def test_the_careless_saga_goes_on_and_leaves_pieces_that_a_cancelled_order_holds(
    shop: FatedShop, order: Order
) -> None:
    with fated(shop, Action.RELEASE, Fate.BROKEN, [order]).open() as services:
        went = forward(asker(services), order)
        compensating.undo_carelessly(asker(services), order, asked(went))
        assert "a cancelled order holds pieces" in breaches(standing(services, order.id))


def test_the_careful_saga_stops_where_it_cannot_undo_and_goes_on_when_it_is_mended(
    shop: FatedShop, order: Order
) -> None:
    with fated(shop, Action.RELEASE, Fate.BROKEN, [order]).open() as services:
        went = forward(asker(services), order)
        with pytest.raises(GivenUp):
            undo(asker(services), order, asked(went))
        assert standing(services, order.id)["orders"] == "placed"
        mend(services.connections["stock"], Request(order.id, Action.RELEASE, order).id)
        undo(asker(services), order, asked(went))
    assert judge(shop).violations == []


# How often


@pytest.mark.parametrize(
    ("guard", "same_message", "asked_again"),
    [(unguarded, 2, 2), (by_message, 1, 2), (by_operation, 1, 1), (by_state, 1, 1)],
)
def test_a_guard_pays_once_for_what_it_knows_again(
    services: Services, guard: Guard, same_message: int, asked_again: int
) -> None:
    for order, attempts, paid in ((MADE[0], (1, 1), same_message), (MADE[1], (1, 2), asked_again)):
        services(Request(order.id, Action.CHARGE, order))
        for attempt in attempts:
            request = Request(order.id, Action.REFUND, order)
            guard(services.connections["payments"], request, attempt)
        assert refunds(services, order) == paid


@pytest.mark.fault
@pytest.mark.parametrize(("guard", "paid"), [(unguarded, 2), (by_operation, 1)])
def test_a_refund_whose_worker_dies_before_it_acknowledges_comes_again(
    shop: FatedShop, schema: str, tmp_path: Path, guard: Guard, paid: int
) -> None:
    with shop.open() as services:
        for order in MADE:
            services(Request(order.id, Action.CHARGE, order))
        enqueue(schema, [Request(order.id, Action.REFUND, order) for order in MADE])
        kill = RecordedKill(EffectWindow.AFTER, history=tmp_path / "history.jsonl")
        for number, fault in enumerate((kill, None)):
            with Worker(f"refunds-{number}", tmp_path / "log", refunder, shop, schema, guard, fault) as worker:
                worker.wait()
        require(History.read(kill.history), "SIGKILL")
        assert [refunds(services, order) for order in MADE] == [paid, 1, 1, 1]


def test_an_answer_that_is_lost_makes_the_queue_ask_with_another_message(shop: FatedShop, schema: str) -> None:
    lossy = fated(shop, Action.REFUND, Fate.ANSWER_LOST, MADE[:1])
    with lossy.open() as services:
        services(Request(MADE[0].id, Action.CHARGE, MADE[0]))
        enqueue(schema, [Request(MADE[0].id, Action.REFUND, MADE[0])])
        refunder(lossy, schema, by_message)
        assert refunds(services, MADE[0]) == 2


def test_a_refund_that_nobody_can_read_is_put_aside_and_those_behind_it_are_paid(shop: FatedShop, schema: str) -> None:
    bodies = {
        name: b'{"saga":"x","action":"refund-payment","order":' + order + b"}" for name, order in odd(MADE[0]).items()
    }
    with shop.open() as services, connect(schema) as queue:
        services(Request(MADE[0].id, Action.CHARGE, MADE[0]))
        enqueue(schema, [Request(MADE[0].id, Action.SHIP, MADE[0])])  # not asked of payments
        for body in (*bodies, codec.encode(Request(MADE[0].id, Action.REFUND, MADE[0]))):
            queue.execute(ADD, [body])
        refunder(shop, schema, by_operation)
        reasons = [reason for (reason,) in queue.execute("select aside from commands where not done")]
        assert (len(reasons), all(reasons)) == (len(bodies) + 1, True)
        assert refunds(services, MADE[0]) == 1


# With what effect


@pytest.mark.parametrize("how", [returning.EXACT, returning.SEMANTIC], ids=["exact", "semantic"])
def test_only_what_was_inspected_is_sold_again(postgres: Endpoint, unique: str, how: Mapping[Action, Effect]) -> None:
    small = create_shop(postgres, unique, world=World(products=2, pieces=6))
    with small.open() as services:
        found = returning.season(services, small.world, how, seed=3, count=12)
    shops.drop(postgres, unique)
    wrong = how is returning.EXACT
    assert (found.charged_in_vain[0] > 0, found.apart > 0, found.loss > 0) == (wrong,) * 3
    assert found.sent_back > 0
    assert found.conserved


def test_a_parcel_that_is_inspected_twice_is_shelved_and_sold_once(services: Services, order: Order) -> None:
    returning.prepare(services, World())
    assert returning.buy(services, order) == ""
    undo(asker(services, returning.SEMANTIC), order, BACKWARDS)
    for good in (order.quantity - 1, order.quantity):
        found = returning.shelve(services.connections["shipping"], order, good)
        returning.restock(services.connections["stock"], order, found)
    short = World().pieces - 1
    assert (returning.on_shelf(services, order.product), returning.in_books(services, order.product)) == (short, short)


@pytest.mark.parametrize(("how", "wiped_out"), [(returning.BEFORE_IMAGE, True), (EFFECTS, False)], ids=["image", "sum"])
def test_putting_the_old_balance_back_wipes_out_later_charges(
    shop: FatedShop, services: Services, how: Mapping[Action, Effect], wiped_out: bool
) -> None:
    returning.pairs(services, World(customers=3), how, seed=5)
    assert any("money" in text for text in judge(shop).violations) is wiped_out
