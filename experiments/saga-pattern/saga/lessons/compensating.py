"""Compensations wrong and right: which steps are undone, in which order, and what if one of them cannot be.

A plain loop calls the services directly: the states between two of its calls are those that any engine's saga has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from saga.order import STEPS, UNDO, Action, Order, Reply, Request, TransientError
from saga.services.effects import EFFECTS, Effect
from saga.services.invariant import STATES
from saga.services.shop import Services, Shop
from shared.errors import LabError

Ask = Callable[[Request], Reply]
ATTEMPTS = 4  # more often than any fate fails that ends by itself


class GivenUp(LabError):
    """Asked again and again, and nobody knows what was done."""


@dataclass(frozen=True)
class Went:
    """How far the steps went: those that were answered, and the one of which nobody knows whether it was done."""

    done: tuple[Action, ...]
    unknown: tuple[Action, ...] = ()
    refused: str = ""


@contextmanager
def opened(shop: Shop) -> Iterator[Services]:
    """The services, for loops in which no database dies: their commits do not wait for the disk."""
    with shop.open() as services:
        for connection in services.connections.values():
            connection.execute("set synchronous_commit = off")
        yield services


def asker(services: Services, effects: Mapping[Action, Effect] = EFFECTS) -> Ask:
    """The services, with these effects in place of their own. Raises TransientError."""
    return replace(services, effects=effects)


def insist(ask: Ask, request: Request, attempts: int = ATTEMPTS) -> Reply:
    """Ask until there is an answer. Raises GivenUp."""
    for attempt in range(1, attempts + 1):
        try:
            return ask(request)
        except TransientError as error:
            if attempt == attempts:
                raise GivenUp(f"{error}, after {attempts} attempts") from error
    raise GivenUp(f"{request.id}: never asked")


def forward(ask: Ask, order: Order, attempts: int = ATTEMPTS) -> Went:
    """Do the steps until one is refused, or until nobody knows."""
    done: tuple[Action, ...] = ()
    for step in STEPS:
        try:
            reply = insist(ask, Request(order.id, step, order), attempts)
        except GivenUp:
            return Went(done, (step,))
        if reply.refused:
            return Went(done, refused=reply.refused)
        done += (step,)
    return Went(done)


def answered(went: Went) -> tuple[Action, ...]:
    """What the popular compensation undoes: the steps that reported success. What nobody knows of stays as it is."""
    return went.done[::-1]


def asked(went: Went) -> tuple[Action, ...]:
    """What may have been done, latest first."""
    return (went.done + went.unknown)[::-1]


def undo(ask: Ask, order: Order, steps: Iterable[Action]) -> None:
    """Undo these steps in this order. Raises GivenUp at the first that cannot be undone; later ones are not begun."""
    for step in steps:
        insist(ask, Request(order.id, UNDO[step], order))


def undo_carelessly(ask: Ask, order: Order, steps: Iterable[Action]) -> None:
    """The popular way: what cannot be undone goes to a log that nobody reads, and the saga counts as compensated."""
    for step in steps:
        with suppress(GivenUp):
            insist(ask, Request(order.id, UNDO[step], order))


def try_once(services: Services, made: Iterable[Order], which: Callable[[Went], tuple[Action, ...]]) -> int:
    """Ask once for each step, and undo what `which` says; returns how many steps of an order that was at the end."""
    steps: tuple[Action, ...] = ()
    for order in made:
        steps = which(forward(asker(services), order, attempts=1))
        undo(asker(services), order, steps)
    return len(steps)


# What must not be seen at any moment, by anybody.

GIFT = "the customer has the goods and the money"


def standing(services: Services, order_id: str) -> dict[str, str]:
    """What each service says of an order now; nothing where it has not heard of it."""
    found = {}
    for service, query in STATES.items():
        one = f"select status from ({query}) as states (id, status) where id = %s"  # noqa: S608
        if row := services.connections[service].execute(one, [order_id]).fetchone():
            found[service] = str(row[0])
    return found


def breaches(states: Mapping[str, str]) -> set[str]:
    """What is illegal about an order that stands so."""
    shipped, charged = states.get("shipping") == "shipped", states.get("payments") == "charged"
    reserved, cancelled = states.get("stock") == "reserved", states.get("orders") == "cancelled"
    found = {
        GIFT: shipped and not charged,
        "pieces that are out are on offer": shipped and not reserved,
        "told that the order is cancelled, and still charged": cancelled and charged,
        "a cancelled order holds pieces": cancelled and reserved,
        "a cancelled order is on its way": cancelled and shipped,
    }
    return {text for text, broken in found.items() if broken}


def undo_watched(services: Services, order: Order, steps: Iterable[Action]) -> set[str]:
    """Undo these steps in this order; returns what was illegal after any of them. Raises GivenUp."""
    seen = set[str]()
    for step in steps:
        undo(asker(services), order, [step])
        seen |= breaches(standing(services, order.id))
    return seen


def gifts(services: Services, made: Iterable[Order], steps: Iterable[Action]) -> int:
    """Carry out orders, and undo them in this order until it goes on no more: how many customers have both?"""
    found, steps = 0, tuple(steps)
    for order in made:
        forward(asker(services), order)
        with suppress(GivenUp):  # there the saga rests
            undo(asker(services), order, steps)
        found += GIFT in breaches(standing(services, order.id))
    return found
