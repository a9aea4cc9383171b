"""What people who are new to event sourcing do, each time beside what works. All of it looks right while it is live.

Each mistake has two classes: the one that wrote, and the one that reads later, after a deployment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sourcing.aggregate import Aggregate, InvariantViolated
from sourcing.event import Data, NewEvent
from sourcing.shop.account import Account
from sourcing.shop.order import Order

LEAST = 1_000  # cents of a deposit, by a rule that came later

Command = Callable[[Any], None]
Make = Callable[[str], Aggregate]


class RuleInApply(Account):
    """The new rule is checked where the past is read: old deposits are refused, and the account with them."""

    def apply(self, type_: str, data: Data) -> None:
        if type_ == "Deposited" and data["cents"] < LEAST:
            raise InvariantViolated(f"account {self.id}: {data['cents']} is less than {LEAST}")
        super().apply(type_, data)


class RuleInCommand(Account):
    """It is checked where something is decided. What has happened has happened."""

    def deposit(self, cents: int) -> None:
        if cents < LEAST:
            raise InvariantViolated(f"account {self.id}: {cents} is less than {LEAST}")
        super().deposit(cents)


class Dated(Account):
    """An account that knows since when it is open."""

    since = ""

    def state(self) -> Data:
        return {**super().state(), "since": self.since}


class ClockInApply(Dated):
    """Every replay looks at the clock again. Random numbers, new ids and remote calls are the same mistake."""

    def apply(self, type_: str, data: Data) -> None:
        super().apply(type_, data)
        if type_ == "AccountOpened":
            self.since = datetime.now(UTC).isoformat()


class ClockInEvent(Dated):
    """The command looks at the clock, once, and records what it saw."""

    def open(self, owner: str) -> None:
        self.record("AccountOpened", owner=owner, since=datetime.now(UTC).isoformat())

    def apply(self, type_: str, data: Data) -> None:
        super().apply(type_, data)
        self.since = data.get("since", self.since)


class StateAsEvent(Order):
    """The event holds the live dict: what is done next is written into the past, before it is even saved.

    It goes past `record`, which would have kept a copy.
    """

    def add_line(self, product: str, quantity: int, cents: int) -> None:
        line: Any = [quantity, cents]
        self.lines[product] = line
        self.uncommitted.append(NewEvent("LinesChanged", {"lines": self.lines}))

    def apply(self, type_: str, data: Data) -> None:
        if type_ == "LinesChanged":
            self.lines = data["lines"]
        else:
            super().apply(type_, data)


class WhyCancelled(Order):
    """A question that came later: why are orders cancelled?"""

    why = ""

    def state(self) -> Data:
        return {**super().state(), "why": self.why}

    def apply(self, type_: str, data: Data) -> None:
        super().apply(type_, data)
        if type_ == "OrderCancelled":
            self.why = data["reason"]


class OrderUpdated(WhyCancelled):
    """CRUD with more steps: the event says what the row is now. The reason was in the command, and is gone."""

    def cancel(self, reason: str) -> None:
        self.why = reason
        self.record("OrderUpdated", status="cancelled", paid=0)

    def apply(self, type_: str, data: Data) -> None:
        if type_ == "OrderUpdated":
            self.status, self.paid = data["status"], data["paid"]
        else:
            super().apply(type_, data)


def _pays(cents: int) -> list[Command]:
    return [
        lambda account: account.open("customer-1"),
        lambda account: account.deposit(cents),
        lambda account: account.deposit(LEAST),
    ]


def _orders(number: int) -> list[Command]:
    return [
        lambda order: order.place("customer-1"),
        lambda order: order.add_line("tea", 1, 100 + number),
        lambda order: order.add_line("cup", 2, 100 + number),
        lambda order: order.cancel(f"reason {number}"),
    ]


@dataclass(frozen=True)
class Mistake:
    """`play` gives the commands of a stream by its number, one event each."""

    name: str
    wrong: tuple[Make, Make]  # the class that writes, the class that reads later
    right: tuple[Make, Make]
    play: Callable[[int], Sequence[Command]]


MISTAKES = (
    Mistake("a rule in apply", (Account, RuleInApply), (Account, RuleInCommand), lambda n: _pays(100 + n)),
    Mistake("the clock in apply", (ClockInApply, ClockInApply), (ClockInEvent, ClockInEvent), lambda n: _pays(100 + n)),
    Mistake("live state as the event", (StateAsEvent, StateAsEvent), (Order, Order), _orders),
    Mistake("OrderUpdated without a reason", (OrderUpdated, OrderUpdated), (WhyCancelled, WhyCancelled), _orders),
)
