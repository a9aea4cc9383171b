"""The order that every saga here carries out, its four steps, and what undoes each of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from shared.errors import LabError


class Action(StrEnum):
    """What the services can be asked to do. Each of the first four is undone by its counterpart; a check by nothing."""

    PLACE = "place-order"
    RESERVE = "reserve-stock"
    CHARGE = "charge-payment"
    SHIP = "ship-order"
    CANCEL = "cancel-order"
    RELEASE = "release-stock"
    REFUND = "refund-payment"
    RECALL = "recall-shipment"
    CHECK = "check-fraud"  # of a service that came later, and in no definition but that of choreography.defined


# In the order of the saga. Compensation goes backwards.
STEPS = Action.PLACE, Action.RESERVE, Action.CHARGE, Action.SHIP
UNDO = dict(zip(STEPS, (Action.CANCEL, Action.RELEASE, Action.REFUND, Action.RECALL), strict=True))
DOES = {undo: do for do, undo in UNDO.items()}
SERVICE = {
    **dict.fromkeys((Action.PLACE, Action.CANCEL), "orders"),
    **dict.fromkeys((Action.RESERVE, Action.RELEASE), "stock"),
    **dict.fromkeys((Action.CHARGE, Action.REFUND), "payments"),
    **dict.fromkeys((Action.SHIP, Action.RECALL), "shipping"),
    Action.CHECK: "fraud",
}


class Order(msgspec.Struct, frozen=True):
    """What a customer wants. Money in cents, of the whole order."""

    id: str
    customer: str
    product: str
    quantity: int
    cents: int


class Request(msgspec.Struct, frozen=True):
    """A command to one service. Its id is the idempotency key: the same saga asks for the same action once."""

    saga: str
    action: Action
    order: Order

    @property
    def id(self) -> str:
        return f"{self.saga}:{self.action}"


class Reply(msgspec.Struct, frozen=True):
    """What came of a request. `refused` says why the service will not do it, ever; empty when it is done."""

    saga: str
    action: Action
    refused: str = ""


class Outcome(StrEnum):
    """How a saga ended. One that has not has none."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"  # it waits for an operator


class TransientError(LabError):
    """The service could not do it now; nothing was done, or nobody knows. Asking again is right."""


class AnswerLost(TransientError):
    """It was done, and whoever asked is not told."""


@dataclass(frozen=True)
class World:
    """What there is before the first order. Accounts in cents, stock in pieces."""

    customers: int = 20
    products: int = 5
    balance: int = 10_000_000
    pieces: int = 1_000_000

    def customer_names(self) -> list[str]:
        return [f"customer-{number:03d}" for number in range(self.customers)]

    def product_names(self) -> list[str]:
        return [f"product-{number:02d}" for number in range(self.products)]


def orders(seed: int, count: int, world: World, prefix: str = "order") -> Iterator[Order]:
    """`count` orders; the same seed gives the same ones."""
    rng = random.Random(seed)
    customers, products = world.customer_names(), world.product_names()
    for number in range(count):
        quantity = rng.randrange(1, 5)
        cents = quantity * rng.randrange(100, 10_000)
        yield Order(f"{prefix}-{seed}-{number:05d}", rng.choice(customers), rng.choice(products), quantity, cents)
