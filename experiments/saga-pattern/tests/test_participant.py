"""What every service does: once, whatever comes twice, late or at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest
from saga.order import STEPS, UNDO, Action, AnswerLost, Order, Reply, Request, TransientError
from saga.services.invariant import Ending, judge
from saga.services.participant import answer, perform
from saga.services.shop import Services
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.windows import EffectWindow

from shared.postgres import connect
from shared.wait import until

Ask = Callable[[Action], Reply]


@pytest.fixture
def ask(services: Services, order: Order) -> Ask:
    """Ask for an action of the order's saga."""
    return lambda action: services(Request(order.id, action, order))


def fated(shop: FatedShop, order: Order, action: Action, fate: Fate) -> FatedShop:
    return replace(shop, fates=Fates(steps={}, undos={}, fixed={(order.id, action): fate}))


def test_what_is_asked_twice_is_done_once_and_answered_the_same(ask: Ask, shop: FatedShop, order: Order) -> None:
    answers = [ask(action) for action in (*STEPS, *STEPS)]
    assert answers[:4] == answers[4:] == [Reply(order.id, action) for action in STEPS]
    assert judge(shop).violations == []


def test_compensations_undo_each_step_once(ask: Ask, shop: FatedShop, order: Order) -> None:
    for action in (*STEPS, *(UNDO[step] for step in reversed(STEPS)), *(UNDO[step] for step in STEPS)):
        assert ask(action).refused == ""
    standing = judge(shop)
    assert (standing.endings, standing.violations) == ({order.id: Ending.COMPENSATED}, [])


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_comes_after_its_compensation_is_refused(step: Action, ask: Ask, shop: FatedShop) -> None:
    assert ask(UNDO[step]).refused == ""
    assert ask(step).refused == f"{UNDO[step]} came before it"
    assert judge(shop).endings == {}


def test_a_refusal_is_for_good(ask: Ask, services: Services, order: Order) -> None:
    dear = replace_cents(order, 10**12)
    refused = services(Request(order.id, Action.CHARGE, dear)).refused
    assert refused == f"{order.customer} cannot pay {10**12}"
    assert ask(Action.CHARGE).refused == refused  # though the order is cheap now


def replace_cents(order: Order, cents: int) -> Order:
    return Order(order.id, order.customer, order.product, order.quantity, cents)


class Hold:
    """A hook that stops in the transaction of the effect until it is let go."""

    def __init__(self) -> None:
        self.within, self.go_on = Event(), Event()

    def __call__(self, window: str) -> None:
        if window == EffectWindow.IN:
            self.within.set()
            assert self.go_on.wait(10)

    def let_go_when_waited_for(self, waiting: Services, conninfo: str) -> None:
        pid = waiting.connections["payments"].info.backend_pid
        with connect(conninfo) as looking:
            blocked = "select count(*) from pg_locks where pid = %s and not granted"
            until("the second one to wait", lambda: (looking.execute(blocked, [pid]).fetchone() or [0])[0])
        self.go_on.set()


@pytest.mark.parametrize(
    ("second", "ending"), [(Action.CHARGE, Ending.INCONSISTENT), (Action.REFUND, Ending.COMPENSATED)]
)
def test_who_comes_while_it_is_being_done_waits_and_finds_it_done(
    second: Action, ending: Ending, shop: FatedShop, order: Order
) -> None:
    held = Hold()
    with shop.open() as one, shop.open() as other, ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: one(Request(order.id, Action.CHARGE, order), at=held))
        assert held.within.wait(10)
        late = pool.submit(lambda: other(Request(order.id, second, order)))
        held.let_go_when_waited_for(other, shop.conninfos["payments"])
        assert (first.result(10).refused, late.result(10).refused) == ("", "")
    standing = judge(shop)
    assert (standing.endings, "times" in str(standing.violations)) == ({order.id: ending}, False)


def test_a_transient_failure_has_done_nothing_and_passes(shop: FatedShop, order: Order) -> None:
    request = Request(order.id, Action.CHARGE, order)
    with fated(shop, order, Action.CHARGE, Fate.TRANSIENT).open() as services:
        for _ in range(2):
            with pytest.raises(TransientError):
                services(request)
        assert answer(services.connections["payments"], request) is None
        assert services(request).refused == ""


def test_an_answer_that_is_lost_was_given_and_is_given_again(shop: FatedShop, order: Order) -> None:
    request = Request(order.id, Action.CHARGE, order)
    with fated(shop, order, Action.CHARGE, Fate.ANSWER_LOST).open() as services:
        with pytest.raises(AnswerLost):
            services(request)
        assert answer(services.connections["payments"], request) == services(request) == Reply(order.id, Action.CHARGE)


def test_what_is_broken_stays_so_until_it_is_mended(shop: FatedShop, order: Order) -> None:
    request = Request(order.id, Action.REFUND, order)
    with fated(shop, order, Action.REFUND, Fate.BROKEN).open() as services:
        for _ in range(5):
            with pytest.raises(TransientError, match="broken"):
                services(request)
        mend(services.connections["payments"], request.id)
        assert services(request).refused == ""


def test_what_belongs_to_the_answer_is_written_with_the_effect_or_not_at_all(shop: FatedShop, order: Order) -> None:
    def also(connection: object, request: Request, reply: Reply) -> None:
        raise KeyError(reply.action)

    with connect(shop.conninfos["payments"]) as connection, pytest.raises(KeyError):
        perform(connection, Request(order.id, Action.CHARGE, order), also=also)
    assert judge(shop).endings == {}
