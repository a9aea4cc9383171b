"""An aggregate is the fold of what it decided, whatever is asked of it."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sourcing.aggregate import Aggregate, InvariantViolated, NotHandled
from sourcing.errors import UnwritableEvent
from sourcing.event import Data, Metadata, encode
from sourcing.postgres import PostgresStore
from sourcing.shop.account import Account
from sourcing.shop.customer import Customer
from sourcing.shop.loyalty import LoyalAccount, rounded, whole
from sourcing.shop.order import Order
from sourcing.stage.shopping import unreached
from sourcing.wrong.mistakes import MISTAKES, Mistake

from shared import codec

CENTS = st.integers(-5, 300)


class Decides(RuleBasedStateMachine):
    """Commands at random. After each one, replay must reach the same state, and a refused one must leave nothing."""

    aggregate: Aggregate
    kind: type[Aggregate]

    def __init__(self) -> None:
        super().__init__()
        self.aggregate = self.kind("1")

    def ask(self, command: str, *arguments: object) -> bool:
        before = json.dumps(self.aggregate.state()), len(self.aggregate.uncommitted)
        try:
            getattr(self.aggregate, command)(*arguments)
        except InvariantViolated:
            assert (json.dumps(self.aggregate.state()), len(self.aggregate.uncommitted)) == before
            return False
        assert len(self.aggregate.uncommitted) == before[1] + 1
        return True

    @invariant()
    def replay_reaches_it(self) -> None:
        assert replayed(self.aggregate).state() == self.aggregate.state()

    @invariant()
    def a_snapshot_restores_it(self) -> None:
        restored = self.kind("1")
        restored.restore(json.loads(json.dumps(self.aggregate.state())))
        assert restored.state() == self.aggregate.state()


class AccountDecides(Decides):
    kind = Account

    def __init__(self) -> None:
        super().__init__()
        self.money = 0

    @rule()
    def open(self) -> None:
        self.ask("open", "customer-1")

    @rule(cents=CENTS)
    def deposit(self, cents: int) -> None:
        self.money += cents * self.ask("deposit", cents)

    @rule(cents=CENTS)
    def withdraw(self, cents: int) -> None:
        self.money -= cents * self.ask("withdraw", cents)

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        assert self.aggregate.state()["balance"] == self.money >= 0


class OrderDecides(Decides):
    kind = Order
    aggregate: Order

    @rule()
    def place(self) -> None:
        self.ask("place", "customer-1")

    @rule(product=st.sampled_from("abc"), quantity=st.integers(-1, 3), cents=st.integers(-1, 9))
    def add_line(self, product: str, quantity: int, cents: int) -> None:
        self.ask("add_line", product, quantity, cents)

    @rule(product=st.sampled_from("abc"))
    def remove_line(self, product: str) -> None:
        self.ask("remove_line", product)

    @rule(off=st.sampled_from([0, 0, 1]))
    def pay(self, off: int) -> None:
        self.ask("pay", self.aggregate.total + off)

    @rule()
    def ship(self) -> None:
        self.ask("ship")

    @precondition(lambda self: len(self.aggregate.uncommitted) > 3)
    @rule()
    def cancel(self) -> None:
        self.ask("cancel", "ordered twice")

    @invariant()
    def what_is_paid_is_what_it_costs(self) -> None:
        order = self.aggregate
        assert order.paid == (order.total if order.status in ("paid", "shipped") else 0)


def replayed(aggregate: Aggregate) -> Aggregate:
    """A fresh one, with all that the aggregate has recorded applied to it as JSON brings it back."""
    fresh = type(aggregate)(aggregate.id)
    for event in aggregate.uncommitted:
        fresh.apply(event.type, json.loads(json.dumps(event.data)))
    return fresh


quick = settings(max_examples=40, stateful_step_count=20)
TestAccountDecides = AccountDecides.TestCase
TestOrderDecides = OrderDecides.TestCase
TestAccountDecides.settings = TestOrderDecides.settings = quick


def opened(cents: int = 100) -> Account:
    account = Account("1")
    account.open("customer-1")
    account.deposit(cents)
    return account


def placed() -> Order:
    order = Order("1")
    order.place("customer-1")
    order.add_line("tea", 2, 500)
    return order


def test_an_account_gives_no_more_than_it_has() -> None:
    account = opened(100)
    with pytest.raises(InvariantViolated, match="101 is more than the balance of 100"):
        account.withdraw(101)
    assert account.balance == 100


def test_an_account_must_be_open_before_money_comes_in() -> None:
    with pytest.raises(InvariantViolated, match="never opened"):
        Account("1").deposit(100)


def test_an_order_is_paid_in_full_or_not_at_all() -> None:
    order = placed()
    with pytest.raises(InvariantViolated, match="999 is not its total of 1000"):
        order.pay(999)
    order.pay(1000)
    assert (order.status, order.paid) == ("paid", 1000)


def test_a_paid_order_takes_no_more_lines() -> None:
    order = placed()
    order.pay(1000)
    with pytest.raises(InvariantViolated, match="order 1, paid: lines can only be added while it is open"):
        order.add_line("cup", 1, 100)


def test_a_cancelled_order_says_what_is_paid_back() -> None:
    order = placed()
    order.pay(1000)
    order.cancel("came too late")
    assert order.uncommitted[-1].data == {"reason": "came too late", "refund": 1000}
    assert order.paid == 0


def test_a_customer_is_registered_once_and_before_all_else() -> None:
    with pytest.raises(InvariantViolated, match="never registered"):
        Customer("1").buy(100)
    customer = Customer("1")
    customer.register("Ada", "ada@example.org")
    with pytest.raises(InvariantViolated, match="registered before"):
        customer.register("Ada", "ada@example.org")


@pytest.mark.parametrize("kind", [Account, Customer, LoyalAccount, Order])
def test_an_event_that_it_does_not_know_is_not_passed_over(kind: type[Aggregate]) -> None:
    with pytest.raises(NotHandled, match="Teleported"):
        kind("1").apply("Teleported", {})


def test_what_is_recorded_says_who_and_why() -> None:
    account = Account("1")
    account.because = Metadata("visit-1", "request-1", "customer-1", "opens an account")
    account.open("customer-1")
    assert account.uncommitted[0].metadata.actor == "customer-1"


def test_the_same_events_under_another_rule_give_other_points() -> None:
    wrong, right = LoyalAccount("1", rounded), LoyalAccount("1", whole)
    for event in opened(600).uncommitted:
        wrong.apply(event.type, dict(event.data))
        right.apply(event.type, dict(event.data))
    assert (wrong.points, right.points, right.balance) == (1, 0, 600)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_beginners_mistake_shows_on_replay(mistake: Mistake, store: PostgresStore) -> None:
    assert unreached(store, "wrong", *mistake.wrong, mistake.play(1)) > 0
    assert unreached(store, "right", *mistake.right, mistake.play(1)) == 0


class Basket(Aggregate):
    """Keeps what it is given, as it is given it."""

    category: ClassVar[str] = "basket"

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.held: list[Any] = []

    def apply(self, type_: str, data: Data) -> None:
        self.held.append(data["what"])
        if isinstance(data["what"], list):
            data["what"].append("applied")

    def state(self) -> Data:
        return {"held": self.held}

    def restore(self, state: Data) -> None:
        self.held = state["held"]


NO_JSON: dict[str, Any] = {
    "Decimal": Decimal("10.50"),
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "tuple": ("tea", 2),
    "number as a key": {1: "tea"},
    "NaN": math.nan,
    "half a surrogate pair": "\ud83d",
}


@pytest.mark.parametrize("value", NO_JSON.values(), ids=NO_JSON)
def test_what_would_be_loaded_otherwise_is_not_recorded(value: Any) -> None:
    basket = Basket("1")
    with pytest.raises(UnwritableEvent, match=r"stream 'basket-1': an event 'Put' cannot be written: .*\['what'\]"):
        basket.record("Put", what=value)
    assert (basket.held, basket.uncommitted) == ([], [])


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=2), st.lists, max_leaves=5))
def test_what_is_recorded_is_what_is_loaded_whatever_is_done_to_it_afterwards(value: Any) -> None:
    live, loaded = Basket("1"), Basket("1")
    live.record("Put", what=value)
    if isinstance(value, list):
        value.append("by the caller")
    for event in live.uncommitted:
        loaded.apply(event.type, codec.decode(encode(live.stream, event)[0]))
    assert loaded.state() == live.state()
