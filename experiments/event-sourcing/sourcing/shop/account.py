"""An account whose money never goes below zero and never vanishes."""

from typing import ClassVar

from sourcing.aggregate import Aggregate, InvariantViolated, NotHandled
from sourcing.event import Data


class Account(Aggregate):
    """The balance is the sum of its movements, and is kept nowhere else. Money in cents."""

    category: ClassVar[str] = "account"

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.owner = ""
        self.balance = 0
        self.movements = 0

    def open(self, owner: str) -> None:
        if self.version or self.uncommitted:
            raise InvariantViolated(f"account {self.id}: it is open already")
        self.record("AccountOpened", owner=owner)

    def deposit(self, cents: int) -> None:
        self._require_amount(cents)
        self.record("Deposited", cents=cents)

    def withdraw(self, cents: int) -> None:
        self._require_amount(cents)
        if cents > self.balance:
            raise InvariantViolated(f"account {self.id}: {cents} is more than the balance of {self.balance}")
        self.record("Withdrawn", cents=cents)

    def apply(self, type_: str, data: Data) -> None:
        match type_:
            case "Deposited":
                self.balance += data["cents"]
                self.movements += 1
            case "Withdrawn":
                self.balance -= data["cents"]
                self.movements += 1
            case "AccountOpened":
                self.owner = data["owner"]
            case _:
                raise NotHandled(type_)

    def state(self) -> Data:
        return {"owner": self.owner, "balance": self.balance, "movements": self.movements}

    def restore(self, state: Data) -> None:
        self.owner, self.balance, self.movements = state["owner"], state["balance"], state["movements"]

    def _require_amount(self, cents: int) -> None:
        if not self.owner:
            raise InvariantViolated(f"account {self.id}: it was never opened")
        if cents <= 0:
            raise InvariantViolated(f"account {self.id}: {cents} is not an amount")
