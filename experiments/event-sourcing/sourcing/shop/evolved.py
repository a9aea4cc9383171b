"""An order whose events have changed twice, as today's program has it: aggregate, schema, and the steps from the past.

2019  OrderCreated, LineAdded with a price in euros, OrderPaidAndShipped, OrderViewed
2021  OrderCreated is called OrderPlaced, prices are in cents, paid and shipped are two events, views are not recorded
2024  the shop sells abroad: every amount has a currency
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import ClassVar

from pydantic import Field

from sourcing.aggregate import Aggregate, InvariantViolated, NotHandled
from sourcing.event import Data, NewEvent
from sourcing.evolution.schemas import EventModel, Strong, Weak
from sourcing.upcasting import Upcasters

HOME_CURRENCY = "EUR"  # of all that was sold before 2024


class OrderPlaced(EventModel):
    customer: str


class LineAdded(EventModel):
    schema_version: ClassVar[int] = 3
    product: str
    quantity: int = Field(gt=0)
    cents: int = Field(gt=0)  # of one piece
    currency: str = Field(pattern="^[A-Z]{3}$")


class OrderPaid(EventModel):
    schema_version: ClassVar[int] = 2
    cents: int = Field(gt=0)
    currency: str = Field(pattern="^[A-Z]{3}$")


class OrderShipped(EventModel):
    carrier: str


STRONG = Strong([OrderPlaced, LineAdded, OrderPaid, OrderShipped])
WEAK = Weak(
    {
        "OrderPlaced": {"customer": ""},
        "LineAdded": {"product": "", "quantity": 0, "cents": 0, "currency": HOME_CURRENCY},
        "OrderPaid": {"cents": 0, "currency": HOME_CURRENCY},
        "OrderShipped": {"carrier": ""},
    }
)


def upcasters() -> Upcasters:
    """The steps from every event ever written, checked. `2021` and `2024` are told apart by their versions only."""
    steps = upcasters_of_2021(STRONG.versions)
    steps.step("LineAdded", 2)(_in_home_currency)
    steps.step("OrderPaid", 1)(_in_home_currency)
    steps.check(EvolvedOrder)
    return steps


def upcasters_of_2021(current: dict[str, int] | None = None) -> Upcasters:
    """The steps that the program of 2021 had, ending at what it wrote unless `current` says otherwise."""
    then = {"OrderPlaced": 1, "LineAdded": 2, "OrderPaid": 1, "OrderShipped": 1}
    steps = Upcasters(then if current is None else current)
    steps.step("OrderCreated", 1, to=("OrderPlaced", 1))(dict)
    steps.step("LineAdded", 1)(_in_cents)
    steps.split("OrderPaidAndShipped", 1, into={"OrderPaid": 1, "OrderShipped": 1})(_paid_then_shipped)
    steps.drop("OrderViewed", 1)
    return steps


def cents_of(euros: float) -> int:
    """The cents that a decimal number of euros was meant to be: 19.99 * 100 is 1998.9999999999998 in floats."""
    return round(Decimal(str(euros)) * 100)


def _in_cents(data: Data) -> Data:
    return {"product": data["product"], "quantity": data["quantity"], "cents": cents_of(data["price"])}


def _paid_then_shipped(data: Data) -> Iterable[tuple[str, Data]]:
    return [("OrderPaid", {"cents": cents_of(data["price"])}), ("OrderShipped", {"carrier": data["carrier"]})]


def _in_home_currency(data: Data) -> Data:
    return {**data, "currency": HOME_CURRENCY}


class EvolvedOrder(Aggregate):
    """Knows the current events, and nothing of the past."""

    category: ClassVar[str] = "order"
    schemas = STRONG.versions

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.customer = ""
        self.currency = ""
        self.lines: dict[str, tuple[int, int]] = {}  # product -> (quantity, cents of one)
        self.paid = 0
        self.carrier = ""

    @property
    def total(self) -> int:
        return sum(quantity * cents for quantity, cents in self.lines.values())

    def place(self, customer: str) -> None:
        self.record("OrderPlaced", customer=customer)

    def add_line(self, product: str, quantity: int, cents: int, currency: str) -> None:
        if self.currency not in ("", currency):
            raise InvariantViolated(f"order {self.id}: it is in {self.currency}, not in {currency}")
        self.record("LineAdded", product=product, quantity=quantity, cents=cents, currency=currency)

    def pay(self) -> None:
        if not self.lines or self.paid:
            raise InvariantViolated(f"order {self.id}: there is nothing to pay")
        self.record("OrderPaid", cents=self.total, currency=self.currency)

    def ship(self, carrier: str) -> None:
        if not self.paid:
            raise InvariantViolated(f"order {self.id}: it is not paid")
        self.record("OrderShipped", carrier=carrier)

    def apply(self, type_: str, data: Data) -> None:
        match type_:
            case "LineAdded":
                self.lines[data["product"]] = data["quantity"], data["cents"]
                self.currency = data["currency"]
            case "OrderPlaced":
                self.customer = data["customer"]
            case "OrderPaid":
                self.paid = data["cents"]
            case "OrderShipped":
                self.carrier = data["carrier"]
            case _:
                raise NotHandled(type_)

    def state(self) -> Data:
        lines = {product: list(line) for product, line in self.lines.items()}
        return {
            "customer": self.customer,
            "currency": self.currency,
            "lines": lines,
            "paid": self.paid,
            "carrier": self.carrier,
        }

    def restore(self, state: Data) -> None:
        self.customer, self.currency, self.paid = state["customer"], state["currency"], state["paid"]
        self.lines = {product: (quantity, cents) for product, (quantity, cents) in state["lines"].items()}
        self.carrier = state["carrier"]


def sample(make: type[EvolvedOrder] = EvolvedOrder) -> list[NewEvent]:
    """One event of every type that is written today, made by the commands that write them: what the contract holds."""
    order = make("1")
    order.place("customer-7")
    order.add_line("tea", 2, 1999, "SEK")
    order.pay()
    order.ship("Posten")
    return order.uncommitted
