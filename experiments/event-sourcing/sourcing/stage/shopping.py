"""Customers who shop: a seeded workload of conversations over two aggregates, its states noted while they are live."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from sourcing.aggregate import Aggregate, InvariantViolated
from sourcing.audit import following
from sourcing.errors import UnreadableEvent
from sourcing.event import Metadata, Recorded
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.shop.order import Order
from sourcing.store import EventStore
from sourcing.wrong.mistakes import Command, Make

A = TypeVar("A", bound=Aggregate)
PRODUCTS = "tea", "cup", "kettle", "book", "lamp"
REASONS = "came too late", "ordered twice", "changed their mind"
CLERK = "clerk-1"


def state_of(aggregate: Aggregate) -> bytes:
    """The whole state as bytes, to compare; what changes later does not change them."""
    return msgspec.json.encode(aggregate.state())


@dataclass
class Shopping:
    """A shop on a store. `live` holds what every aggregate's state was after each of its events."""

    store: EventStore
    rng: random.Random
    live: dict[tuple[type[Aggregate], str, int], bytes] = field(default_factory=dict)
    commands: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.accounts = Repository(self.store, Account)
        self.orders = Repository(self.store, Order)

    def visit(self, number: int) -> None:
        """One customer's conversation: an account, an order, what the customer takes off it again, and a payment."""
        customer, ident = f"customer-{number}", f"{number:04d}"
        by = Metadata(f"visit-{ident}", f"request-{ident}", customer, "shops on the web")
        self.do(self.accounts, ident, lambda account: account.open(customer), by)
        for _ in range(self.rng.randrange(1, 4)):
            self.do(self.accounts, ident, lambda account: account.deposit(self.rng.randrange(200, 400) * 100), by)
        self.do(self.orders, ident, lambda order: order.place(customer), by)
        self.fill(ident, by)
        total = self.orders.load(ident).total
        paid = self.do(self.orders, ident, lambda order: order.pay(total), by)
        self.do(self.accounts, ident, lambda account: account.withdraw(total), following(paid, customer, "pays"))
        self.finish(ident, total, paid)

    def fill(self, ident: str, by: Metadata) -> None:
        chosen = self.rng.sample(PRODUCTS, self.rng.randrange(2, len(PRODUCTS)))
        for product in chosen:
            quantity, cents = self.rng.randrange(1, 4), self.rng.randrange(3, 15) * 100
            self.do(self.orders, ident, lambda order, p=product, q=quantity, c=cents: order.add_line(p, q, c), by)
        if self.rng.random() < 0.5:
            self.do(self.orders, ident, lambda order: order.remove_line(chosen[0]), by)

    def finish(self, ident: str, total: int, paid: Recorded) -> None:
        """A third of the orders are cancelled by the clerk and paid back, the others are shipped. Then, mistakes."""
        if int(ident) % 3 == 0:
            reason = self.rng.choice(REASONS)
            why = following(paid, CLERK, f"the customer called: {reason}")
            cancelled = self.do(self.orders, ident, lambda order: order.cancel(reason), why)
            back = following(cancelled, CLERK, "pays back what was cancelled")
            self.do(self.accounts, ident, lambda account: account.deposit(total), back)
        else:
            self.do(self.orders, ident, Order.ship, following(paid, CLERK, "it is paid"))
        self.refuse(self.orders, ident, lambda order: order.add_line("late", 1, 100))
        self.refuse(self.accounts, ident, lambda account: account.withdraw(account.balance + 1))

    def do(self, repository: Repository[A], ident: str, command: Callable[..., Any], why: Metadata) -> Recorded:
        """A command of one event, and that event."""
        aggregate = repository.execute(ident, command, why)
        self.commands += 1
        self.live[type(aggregate), ident, aggregate.version] = state_of(aggregate)
        return next(self.store.read(aggregate.stream, backwards=True, limit=1))

    def refuse(self, repository: Repository[A], ident: str, command: Callable[..., Any]) -> None:
        """A command that the aggregate has to refuse."""
        try:
            repository.execute(ident, command)
        except InvariantViolated:
            self.refused += 1


# Mistakes.


def unreached(store: EventStore, ident: str, writes: Make, reads: Make, commands: Sequence[Command]) -> int:
    """Run the commands live and save all; returns how many of the live states replay does not reach."""
    aggregate, live = writes(ident), []
    for command in commands:
        command(aggregate)
        live.append(state_of(aggregate))
    Repository(store, writes).save(aggregate)
    later = Repository(store, reads)
    return sum(not _reaches(later, ident, version, state) for version, state in enumerate(live, 1))


def _reaches(repository: Repository[Aggregate], ident: str, version: int, state: bytes) -> bool:
    try:
        return state_of(repository.load_at(ident, version=version)) == state
    except UnreadableEvent:
        return False
