"""A customer of the shop: the aggregate whose events hold a person's data, beside money that must stay."""

from typing import ClassVar

from sourcing.aggregate import Aggregate, InvariantViolated, NotHandled
from sourcing.event import Data


class Customer(Aggregate):
    """`id` is a pseudonym and says nothing. No decision depends on name, e-mail or address. Money in cents."""

    category: ClassVar[str] = "customer"

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.name = self.email = self.address = ""
        self.spent = 0

    def register(self, name: str, email: str) -> None:
        if self.name:
            raise InvariantViolated(f"customer {self.id}: registered before")
        self.record("CustomerRegistered", customer=self.id, name=name, email=email)

    def move(self, address: str) -> None:
        self._require_registered()
        self.record("CustomerMoved", customer=self.id, address=address)

    def buy(self, cents: int) -> None:
        self._require_registered()
        if cents <= 0:
            raise InvariantViolated(f"customer {self.id}: {cents} is not an amount")
        self.record("Purchased", customer=self.id, cents=cents)

    def apply(self, type_: str, data: Data) -> None:
        match type_:
            case "Purchased":
                self.spent += data["cents"]
            case "CustomerMoved":
                self.address = data["address"]
            case "CustomerRegistered":
                self.name, self.email = data["name"], data["email"]
            case _:
                raise NotHandled(type_)

    def state(self) -> Data:
        return {"name": self.name, "email": self.email, "address": self.address, "spent": self.spent}

    def restore(self, state: Data) -> None:
        self.name, self.email, self.address = state["name"], state["email"], state["address"]
        self.spent = state["spent"]

    def _require_registered(self) -> None:
        if not self.name:
            raise InvariantViolated(f"customer {self.id}: never registered")
