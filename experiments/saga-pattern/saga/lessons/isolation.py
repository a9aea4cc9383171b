"""Sagas without isolation, and what makes up for it: others see, and change, what a saga has not finished.

The anomalies are those of Garcia-Molina and Salem, Sagas (1987); the countermeasures those of Frank and Zahle, Semantic
ACID Properties in Multidatabases (1998), as named by Richardson, Microservices Patterns (2018), section 4.3: semantic
lock, commutative update, reread value, pessimistic view.

Sagas are generators that stop after every local transaction, and chance decides which goes on. So the same seed gives
the same interleaving, on any machine. Where a saga has to wait for another, its service says so (Taken); it asks again.
"""

import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Protocol, TypeVar

from saga.lessons.compensating import Ask, asker, undo
from saga.order import STEPS, Action, Order, Request, TransientError
from saga.services import effects
from saga.services.shop import Services
from shared.errors import LabError
from shared.postgres import Connection

T = TypeVar("T")
MOST = 1_000  # turns for each saga; more is a livelock
# The semantic locks: rows that say which saga has not finished with what. No lock of the database outlives its step.
TABLES = """
create table holds (customer text primary key, saga text not null);   -- of an account
create table unfinished (order_id text primary key);                  -- what this order did here may be undone yet
create table credits (order_id text primary key, customer text not null, cents bigint not null);   -- promised
"""


def prepare(services: Services) -> None:
    """The tables of the semantic locks, in the databases of stock and payments."""
    for service in ("stock", "payments"):
        services.connections[service].execute(TABLES)


class Move(StrEnum):
    """What a saga did in its turn."""

    DONE = "done"
    WAITED = "waited"
    REREAD = "reread"


class End(StrEnum):
    """How a saga ended."""

    COMPLETE = "complete"
    COMPENSATED = "compensated"
    REFUSED = "refused"  # by a service that had not enough of what is wanted, or by the lock of another saga
    IN_DEBT = "in debt"  # it could not be undone


Saga = Generator[Move, None, End]


class Taken(TransientError):
    """A saga that has not finished holds what is wanted. Nothing was done; asking again is right."""


class Livelock(LabError):
    """Sagas wait, and none goes on."""


@dataclass
class Tally:
    """What came of interleaved sagas."""

    ends: Counter[End] = field(default_factory=Counter)
    turns: Counter[Move] = field(default_factory=Counter)


def interleave(
    sagas: Iterable[Saga], chance: random.Random, concurrent: int, between: Callable[[], None] = lambda: None
) -> Tally:
    """Carry out all of them, so many at once; `between` is called after every local transaction. Raises Livelock."""
    coming, tally = list(sagas), Tally()
    waiting, most = iter(coming), MOST * len(coming)
    running = list(islice(waiting, concurrent))
    while running:
        saga = chance.choice(running)
        try:
            tally.turns[next(saga)] += 1
        except StopIteration as end:
            tally.ends[end.value] += 1
            running.remove(saga)
            running.extend(islice(waiting, 1))
        between()
        if tally.turns.total() > most:
            raise Livelock(f"{len(running)} sagas after {most} turns: {dict(tally.turns)}")
    return tally


def patiently(do: Callable[[], T]) -> Generator[Move, None, T]:
    """Do it as soon as nobody holds what it needs."""
    while True:
        try:
            return do()
        except Taken:
            yield Move.WAITED


# Lost updates: a saga reads a balance in one step and writes it in a later one.


class Charging(Protocol):
    """A way to charge an account: `look` before the pieces are reserved, `charge` after it, `finish` in the end."""

    def look(self, connection: Connection, order: Order) -> int:
        """The balance. Raises Taken."""
        ...

    def charge(self, connection: Connection, order: Order, seen: int) -> bool:
        """Whether it was done; otherwise the balance is another one by now."""
        ...

    def finish(self, connection: Connection, order: Order) -> None: ...


class Overwriting:
    """The popular way: what was read, less the price, is written."""

    def look(self, connection: Connection, order: Order) -> int:
        row = connection.execute("select cents from accounts where customer = %s", [order.customer]).fetchone()
        return int(row[0]) if row else 0

    def charge(self, connection: Connection, order: Order, seen: int) -> bool:
        connection.execute("update accounts set cents = %s where customer = %s", [seen - order.cents, order.customer])
        _note_charge(connection, order)
        return True

    def finish(self, connection: Connection, order: Order) -> None:
        """Nothing to do."""


class Commuting(Overwriting):
    """Commutative update: the price is taken from whatever is there. The order of such updates does not matter."""

    def charge(self, connection: Connection, order: Order, seen: int) -> bool:
        effects.charge(connection, order)
        return True


class Rereading(Overwriting):
    """Reread value: it is only written if it is still what was read."""

    def charge(self, connection: Connection, order: Order, seen: int) -> bool:
        written = connection.execute(
            "update accounts set cents = %s where customer = %s and cents = %s",
            [seen - order.cents, order.customer, seen],
        )
        if written.rowcount:
            _note_charge(connection, order)
        return bool(written.rowcount)


class Holding(Overwriting):
    """Semantic lock: the account is the saga's from its first look to its end."""

    def look(self, connection: Connection, order: Order) -> int:
        values = [order.customer, order.id]
        taken = connection.execute("insert into holds values (%s, %s) on conflict do nothing", values)
        if taken.rowcount == 0:
            raise Taken(f"the account of {order.customer} is in the hands of another saga")
        return super().look(connection, order)

    def finish(self, connection: Connection, order: Order) -> None:
        connection.execute("delete from holds where saga = %s", [order.id])


def _note_charge(connection: Connection, order: Order) -> None:
    values = [order.id, order.customer, order.cents]
    connection.execute("insert into charges (order_id, customer, cents, status) values (%s, %s, %s, 'charged')", values)


def purchase(services: Services, order: Order, charging: Charging, waits: bool = True) -> Saga:
    """An order whose price is taken from a balance that was read before. `waits`: for a lock, or else is refused."""
    ask, payments = asker(services), services.connections["payments"]

    def look() -> int:
        with payments.transaction():
            return charging.look(payments, order)

    def charge(seen: int) -> bool:
        with payments.transaction():
            return charging.charge(payments, order, seen)

    try:
        seen = (yield from patiently(look)) if waits else look()
    except Taken:
        return End.REFUSED
    yield Move.DONE
    for step in (Action.PLACE, Action.RESERVE):
        ask(Request(order.id, step, order))
        yield Move.DONE
    while not charge(seen):
        yield Move.REREAD
        seen = look()
        yield Move.DONE
    yield Move.DONE
    end = yield from close(ask, order, ask(Request(order.id, Action.SHIP, order)).refused, STEPS[:-1])
    charging.finish(payments, order)
    return end


def close(ask: Ask, order: Order, refused: str, done: Sequence[Action]) -> Saga:
    """After a step: if it was refused, what was done is undone, in turns."""
    yield Move.DONE
    for step in reversed(done) if refused else ():
        undo(ask, order, [step])
        yield Move.DONE
    return End.COMPENSATED if refused else End.COMPLETE


def missing(connection: Connection, customers: str, opening: int) -> int:
    """Cents by which the accounts of customers whose names begin so differ from what was charged to them."""
    query = """
        select coalesce(sum(abs(cents + kept - %s)), 0) from (
            select a.cents, coalesce(sum(c.cents) filter (where c.status = 'charged'), 0) as kept
            from accounts a left join charges c using (customer)
            where starts_with(customer, %s) group by customer, a.cents) as of_each
    """
    row = connection.execute(query, [opening, customers]).fetchone()
    return int(row[0]) if row else 0


class Locks:
    """Looks, after every turn, for locks that the services' database sessions hold."""

    def __init__(self, services: Services) -> None:
        self.connection = services.connections["payments"]
        self.pids = [connection.info.backend_pid for connection in services.connections.values()]
        self.turns = self.found = 0

    def __call__(self) -> None:
        query = "select count(*) from pg_locks where pid = any(%s) and mode like %s and locktype <> 'virtualxid'"
        row = self.connection.execute(query, [self.pids, "%ExclusiveLock"]).fetchone()
        self.turns += 1
        self.found += int(row[0]) if row else 0


CONCURRENT = 8  # sagas
OPENING = 10_000_000  # cents in an account


@dataclass(frozen=True)
class Approach:
    """A way to charge an account that others charge, too, and what is said of it."""

    name: str
    charging: Charging
    waits: bool = True


@dataclass(frozen=True)
class Result:
    """What a way left: cents that are not where the charges say, turns and ends."""

    lost: int
    tally: Tally

    @property
    def extra(self) -> int:
        return self.tally.turns[Move.WAITED] + self.tally.turns[Move.REREAD]


def charge_all(services: Services, way: Approach, made: list[Order], chance: random.Random, locks: Locks) -> Result:
    payments = services.connections["payments"]
    for customer in {order.customer for order in made}:
        payments.execute("insert into accounts values (%s, %s)", [customer, OPENING])
    sagas = [purchase(services, order, way.charging, way.waits) for order in made]
    tally = interleave(sagas, chance, CONCURRENT, locks if isinstance(way.charging, Holding) else lambda: None)
    return Result(missing(payments, made[0].customer.partition(" ")[0] + " ", OPENING), tally)
