"""A shop order: placed, changed while it is open, paid once and in full, shipped after that."""

from typing import Any, ClassVar

from sourcing.aggregate import Aggregate, InvariantViolated, NotHandled
from sourcing.event import Data


class Order(Aggregate):
    """The root of its lines: nothing changes them but its commands. Money in cents."""

    category: ClassVar[str] = "order"

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.status = "new"
        self.customer = ""
        self.lines: dict[str, tuple[int, int]] = {}  # product -> (quantity, price of one in cents)
        self.paid = 0

    @property
    def total(self) -> int:
        return sum(quantity * cents for quantity, cents in self.lines.values())

    def place(self, customer: str) -> None:
        self._require(self.status == "new", "it was placed before")
        self.record("OrderPlaced", customer=customer)

    def add_line(self, product: str, quantity: int, cents: int) -> None:
        self._require(self.status == "open", "lines can only be added while it is open")
        self._require(quantity > 0 and cents > 0, "quantity and price must be above zero")
        self._require(product not in self.lines, f"{product} is on it already")
        self.record("LineAdded", product=product, quantity=quantity, cents=cents)

    def remove_line(self, product: str) -> None:
        self._require(self.status == "open" and product in self.lines, f"there is no open line of {product}")
        self.record("LineRemoved", product=product)

    def pay(self, cents: int) -> None:
        self._require(self.status == "open" and bool(self.lines), "only an open order with lines can be paid")
        self._require(cents == self.total, f"{cents} is not its total of {self.total}")
        self.record("OrderPaid", cents=cents)

    def ship(self) -> None:
        self._require(self.status == "paid", "it is not paid")
        self.record("OrderShipped")

    def cancel(self, reason: str) -> None:
        self._require(self.status in ("open", "paid"), "it cannot be cancelled any more")
        self.record("OrderCancelled", reason=reason, refund=self.paid)

    def apply(self, type_: str, data: Data) -> None:
        match type_:
            case "LineAdded":
                self.lines[data["product"]] = data["quantity"], data["cents"]
            case "LineRemoved":
                del self.lines[data["product"]]
            case "OrderPlaced":
                self.status, self.customer = "open", data["customer"]
            case "OrderPaid":
                self.status, self.paid = "paid", data["cents"]
            case "OrderShipped":
                self.status = "shipped"
            case "OrderCancelled":
                self.status, self.paid = "cancelled", 0
            case _:
                raise NotHandled(type_)

    def state(self) -> Data:
        lines: Any = {product: list(line) for product, line in self.lines.items()}
        return {"status": self.status, "customer": self.customer, "lines": lines, "paid": self.paid}

    def restore(self, state: Data) -> None:
        self.status, self.customer, self.paid = state["status"], state["customer"], state["paid"]
        self.lines = {product: (quantity, cents) for product, (quantity, cents) in state["lines"].items()}

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise InvariantViolated(f"order {self.id}, {self.status}: {otherwise}")
