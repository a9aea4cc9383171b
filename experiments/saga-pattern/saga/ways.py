"""Four ways to have an order carried out by four services, as processes that an experiment starts and kills."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from psycopg.errors import LockNotAvailable

from saga import nosaga, plain
from saga.fates import KIND, Fates
from saga.nosaga import Locked
from saga.order import Order, World
from saga.services.shop import Shop, create
from saga.windows import Kill, hook
from shared import postgres
from shared.faults import Hook, nowhere
from shared.servers.server import Endpoint
from shared.wait import until

LOCK_TIMEOUT = f"set lock_timeout = '{nosaga.PATIENCE * 1000:.0f}ms'"
WAITING = "select 1 from pg_locks where not granted and waitstart < clock_timestamp() - make_interval(secs => %s)"


class Way(StrEnum):
    """How an order is carried out."""

    CALLS = "four calls in a row"
    LOCK = "a lock around four calls"
    TWO_PHASE = "two-phase commit"
    SAGA = "a saga"


@dataclass(frozen=True)
class Site:
    """The four services, and the database of whoever has them work together: locks, and the log of sagas."""

    shop: Shop
    own: str


def build(database: Endpoint, prefix: str, fates: Fates = KIND, world: World | None = None) -> Site:
    shop = create(database, prefix, fates, world)
    own = postgres.create_schema(database, f"{prefix}_own")
    with postgres.connect(own) as connection:
        connection.execute(f"{nosaga.LOCKS}; {plain.LOG}")
    return Site(shop, own)


@contextmanager
def carrier(site: Site, way: Way, at: Hook = nowhere) -> Iterator[Callable[[Order], None]]:
    """A function that carries out orders. It raises Locked when one would have to wait too long for another."""
    with postgres.connect(site.own) as own, site.shop.open() as services:
        for connection in services.connections.values():
            connection.execute(LOCK_TIMEOUT)
        ways: dict[Way, Callable[[Order], object]] = {
            Way.CALLS: partial(nosaga.four_calls, services, at=at),
            Way.LOCK: partial(nosaga.locked_calls, own, services, at=at),
            Way.TWO_PHASE: partial(nosaga.two_phase, site.shop, at=at),
            Way.SAGA: partial(plain.carry_out, own, services, at=at),
        }

        def carry_out(order: Order) -> None:
            try:
                ways[way](order)
            except LockNotAvailable as error:
                raise Locked(f"{order.id}: {error}") from error

        yield carry_out


def die(site: Site, way: Way, order: Order, kill: Kill) -> None:
    """A process that carries out an order and is killed meanwhile."""
    with hook(kill) as at, carrier(site, way, at) as carry_out:
        carry_out(order)


def held_up(site: Site, way: Way, orders: Iterable[Order]) -> list[str]:
    """Have these orders carried out; returns those that another order keeps from it."""
    waiting = []
    with carrier(site, way) as carry_out:
        for order in orders:
            try:
                carry_out(order)
            except Locked:
                waiting.append(order.id)
    return waiting


def wait_for_turn(site: Site, order: Order) -> None:
    """A process: an order in two-phase commit that waits for locks as long as it takes."""
    nosaga.two_phase(site.shop, order, patience=0)


def until_waiting(site: Site, seconds: float) -> None:
    """Return when some session has waited so long for a lock."""
    with postgres.connect(site.own) as connection:
        until(f"a session to wait {seconds:g} s for a lock", lambda: connection.execute(WAITING, [seconds]).fetchone())


def carry_out_all(site: Site, orders: Iterable[Order], kill: Kill | None = None) -> None:
    """A process: the sagas that have not ended, then those of the orders that have not begun."""
    with hook(kill) as at, postgres.connect(site.own) as log, site.shop.open() as services:
        plain.resume(log, services)
        for order in orders:
            if not plain.known(log, order):
                plain.carry_out(log, services, order, at)
