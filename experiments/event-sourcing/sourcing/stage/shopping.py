"""Customers who shop: a seeded workload of conversations over two aggregates, its states noted while they are live.

Then what is tried on it: mistakes of beginners, attacks on the past, and a bug in the points for deposits.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

import sourcing
from shared.experiment import Run
from shared.postgres import Connection, connect, number
from shared.size import Size, size
from sourcing import postgres
from sourcing.aggregate import Aggregate, InvariantViolated
from sourcing.audit import following
from sourcing.errors import UnreadableEvent
from sourcing.event import Metadata, NewEvent, Recorded
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.shop.loyalty import LoyalAccount
from sourcing.shop.order import Order
from sourcing.store import EventStore
from sourcing.wrong import crud
from sourcing.wrong.crud import AccountRows
from sourcing.wrong.mistakes import Command, Make

A = TypeVar("A", bound=Aggregate)
PRODUCTS = "tea", "cup", "kettle", "book", "lamp"
REASONS = "came too late", "ordered twice", "changed their mind"
CLERK = "clerk-1"
DEPOSITS = 600, 1_000, 1_400, 2_000  # cents
ATTACKS = "update events set data = '{}'", "delete from events", "truncate events"
FORGERY = """
update events set data = convert_to(replace(convert_from(data, 'utf8'), '"cents":', '"cents":9'), 'utf8')
where type = 'Deposited'
"""
# As if the clock had been set back by an hour before the third event of every stream.
SET_BACK = "update events set recorded_at = recorded_at - interval '1 hour' where version > 2"
GRANTS = (
    "create role {0}",
    "grant usage on schema {1} to {0}",
    "grant select, insert on events to {0}",
    "grant select on stream_metadata to {0}",
    "set role {0}",
)


def state_of(aggregate: Aggregate) -> bytes:
    """The whole state as bytes, to compare; what changes later does not change them."""
    return msgspec.json.encode(aggregate.state())


@dataclass(frozen=True)
class Moment:
    """What an aggregate was after one of its events, while it was live."""

    home: Repository[Any]  # which can load it
    ident: str
    version: int
    time: datetime
    state: bytes

    def is_loaded(self) -> bool:
        """Whether a load gives this state now."""
        return state_of(self.home.load(self.ident)) == self.state

    def is_replayed(self, **upto: Any) -> bool:
        """Whether a replay up to a version or a time gives it."""
        return state_of(self.home.load_at(self.ident, **upto)) == self.state


@dataclass
class Shopping:
    """A shop on a store. `live` holds what every aggregate was after each of its events."""

    store: PostgresStore
    rng: random.Random
    live: list[Moment] = field(default_factory=list)
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
        event = next(self.store.read(aggregate.stream, backwards=True, limit=1))
        self.live.append(Moment(repository, ident, event.version, event.recorded_at, state_of(aggregate)))
        return event

    def refuse(self, repository: Repository[A], ident: str, command: Callable[..., Any]) -> None:
        """A command that the aggregate has to refuse."""
        try:
            repository.execute(ident, command)
        except InvariantViolated:
            self.refused += 1

    @property
    def last(self) -> list[Moment]:
        """The last moment of every aggregate."""
        return [*{(moment.home, moment.ident): moment for moment in self.live}.values()]

    def orders_of(self, events: int) -> list[str]:
        """The orders that have so many events, or more."""
        return [moment.ident for moment in self.live if moment.home is self.orders and moment.version == events]

    def append_past_root(self, ident: str) -> None:
        """A line on an order, whatever the order says to it."""
        self.store.append(f"order-{ident}", [NewEvent("LineAdded", {"product": "late", "quantity": 1, "cents": 100})])

    @property
    def written(self) -> int:
        """Events in the store."""
        return number(self.store.connection, "select count(*) from events")


@contextmanager
def open_shop(run: Run) -> Iterator[Shopping]:
    """An empty shop in a schema of its own, and the table of accounts that are rows."""
    postgres.create(conninfo := run.schema())
    with connect(conninfo) as connection:
        connection.execute(crud.SCHEMA)
        yield Shopping(PostgresStore(connection), random.Random(run.seed))


# A bug in the points for deposits.


def deposits(seed: int, count: int) -> dict[str, list[int]]:
    """Account -> the cents that are paid into it, one deposit after the other."""
    rng = random.Random(f"{seed} points")
    return {f"points-{n:04d}": rng.choices(DEPOSITS, k=rng.randrange(1, 5)) for n in range(count)}


def pay_in(accounts: Repository[LoyalAccount], rows: AccountRows, paid: Mapping[str, list[int]]) -> None:
    """The same deposits in events and in rows."""
    for ident, cents in paid.items():
        loyal = accounts.make(ident)
        loyal.open(ident)
        for amount in cents:
            loyal.deposit(amount)
        accounts.save(loyal)
        with rows.connection.transaction():
            rows.open(ident, ident)
            for amount in cents:
                rows.deposit(ident, amount)


def kept(rows: AccountRows) -> dict[str, tuple[int, int]]:
    """Of each row the balance and the points."""
    found = rows.connection.execute("select id, balance, points from account_rows").fetchall()
    return {ident: (balance, points) for ident, balance, points in found}


def beyond_repair(rows: Mapping[str, tuple[int, int]], right: Mapping[str, int]) -> int:
    """How many of the rows (balance, points) the best repair that there can be leaves with wrong points.

    Rows that are equal get equal points from any repair: where several are right, only the most frequent can win.
    """
    alike: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for ident, row in rows.items():
        alike[row][right[ident]] += 1
    return sum(answers.total() - max(answers.values()) for answers in alike.values())


# Mistakes, and what there is to learn.


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


def sizes() -> dict[str, Size]:
    """Accounts with points as rows and as events, and what carries the events of all features: the code of each."""
    parts = {
        "row updated in place": ("wrong/crud.py",),
        "events": ("shop/account.py", "shop/loyalty.py"),
        "what carries events": ("aggregate.py", "event.py", "store.py", "repository.py", "postgres.py"),
    }
    package = Path(str(sourcing.__file__)).parent
    return {name: size(package / module for module in modules) for name, modules in parts.items()}


# What the role of a program may do to the past, what the owner of the table may, and what a clock may.


@contextmanager
def application_role(connection: Connection, schema: str) -> Iterator[None]:
    """The session as the role that a program should have; roles are not of a schema, so it is dropped here."""
    role = sql.Identifier(f"{schema}_app")
    for grant in GRANTS:
        connection.execute(sql.SQL(grant).format(role, sql.Identifier(schema)))
    try:
        yield
    finally:
        connection.execute("reset role")
        connection.execute(sql.SQL("drop owned by {0}").format(role))
        connection.execute(sql.SQL("drop role {0}").format(role))


def is_refused(connection: Connection, attack: str) -> bool:
    try:
        connection.execute(attack)
    except InsufficientPrivilege:
        return True
    return False
