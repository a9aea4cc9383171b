"""Five ways to have an order carried out by four services, as processes that an experiment starts and kills."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from psycopg import Xid
from psycopg.errors import LockNotAvailable

from saga import plain
from saga.order import Order, World
from saga.services.invariant import Ending, judge
from saga.services.shop import SERVICES
from saga.stage.fates import KIND, FatedShop, Fates, create
from saga.stage.killing import RecordedKill, hook
from saga.windows import Hook, nowhere
from saga.wrong import nosaga
from saga.wrong.nosaga import CommitWindow, Locked, resolve
from shared import postgres
from shared.experiment import Run
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

LOCK_TIMEOUT = f"set lock_timeout = '{nosaga.PATIENCE * 1000:.0f}ms'"
LEASE = 5.0  # seconds: a machine that stands still for less does not outlast it before others are seen to wait
OTHERS = 3  # orders after each kill: of the same customer, of the same product, and of neither
HELD = "select 1 from locks where ends_at >= clock_timestamp()"
WAITING = """
select gid from pg_prepared_xacts p join pg_locks l on l.transactionid = p.transaction
where not granted and waitstart < clock_timestamp() - make_interval(secs => %s)
"""

SPAN = """
select split_part(request_id, ':', 1), extract(epoch from min(answered_at))::float8,
       extract(epoch from max(answered_at))::float8
from inbox group by 1
"""


class Way(StrEnum):
    """How an order is carried out."""

    CALLS = "four calls in a row"
    LOCK = "a lock around four calls"
    LEASE = "a lock with a lease"
    TWO_PHASE = "two-phase commit"
    SAGA = "a saga"


@dataclass(frozen=True)
class Site:
    """The four services, and the database of whoever has them work together: locks, and the log of sagas."""

    shop: FatedShop
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
            Way.LEASE: partial(nosaga.locked_calls, own, services, at=at, lease=LEASE),
            Way.TWO_PHASE: partial(nosaga.two_phase, site.shop, at=at),
            Way.SAGA: partial(plain.carry_out, own, services, at=at),
        }

        def carry_out(order: Order) -> None:
            try:
                ways[way](order)
            except LockNotAvailable as error:
                raise Locked(f"{order.id}: {error}") from error

        yield carry_out


def die(site: Site, way: Way, order: Order, kill: RecordedKill) -> None:
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


def until_waiting(site: Site, seconds: float) -> list[tuple[str, str]]:
    """Wait until a session has waited so long for a prepared transaction; whose those are: (order, service)."""
    with postgres.connect(site.own) as connection:
        what = f"a session to wait {seconds:g} s for a prepared transaction"
        found = [
            Xid.from_string(gid) for (gid,) in until(what, lambda: connection.execute(WAITING, [seconds]).fetchall())
        ]
    return [(xid.gtrid, xid.bqual or "") for xid in found]


def until_free(site: Site) -> None:
    """Wait until every lease has run out."""
    with postgres.connect(site.own) as locks:
        until("every lease to run out", lambda: locks.execute(HELD).fetchone() is None)


def lock_ends(site: Site, order: Order) -> float:
    """When the order's lock ends by itself, in seconds of Unix time: never is infinite, and 0 if it has none."""
    with postgres.connect(site.own) as locks:
        return nosaga.lock_ends(locks, order.id) or 0.0


def others(site: Site, order: Order, when: str) -> list[Order]:
    """Orders that come later: of the same customer, of the same product, and of neither."""
    customer, product = site.shop.world.customer_names()[-1], site.shop.world.product_names()[-1]
    whose = {
        "customer": (order.customer, product),
        "product": (customer, order.product),
        "neither": (customer, product),
    }
    return [Order(f"{when}-{order.id}-{same}", *of, 1, 500) for same, of in whose.items()]


def entered(site: Site, order: Order, before: float) -> list[str]:
    """Which others of the same customer or product a service has answered before this second of Unix time."""
    came = {one.id for when in ("early", "late") for one in others(site, order, when)[:2]}
    return [ident for ident, (first, _) in spans(site.shop).items() if ident in came and first < before]


def cannot_pay(site: Site, way: Way) -> tuple[Ending | None, str]:
    """How an order ends that its customer cannot pay, and what is wrong then."""
    world = site.shop.world
    order = Order("unpaid", world.customer_names()[-2], world.product_names()[-2], 1, world.balance + 1)
    held_up(site, way, [order])
    standing = judge(site.shop)
    return standing.endings.get(order.id), "; ".join(one for one in standing.violations if one.startswith(order.id))


def carry_out_all(site: Site, orders: Iterable[Order], kill: RecordedKill | None = None) -> None:
    """A process: the sagas that have not ended, then those of the orders that have not begun."""
    with hook(kill) as at, postgres.connect(site.own) as log, site.shop.open() as services:
        plain.resume(log, services)
        for order in orders:
            if not plain.known(log, order):
                plain.carry_out(log, services, order, at)


def watch(site: Site, worker: Worker) -> list[bool]:
    """Look until the process is dead, or done; whether each look saw an order half done."""
    looks = []
    while worker.alive():
        looks.append(judge(site.shop).count(Ending.INCONSISTENT) > 0)
    worker.wait()
    return looks


def spans(shop: FatedShop) -> dict[str, tuple[float, float]]:
    """Order -> when the first service answered, and the last, in seconds of Unix time. Between, it is half done."""
    first, last = dict[str, float](), dict[str, float]()
    for conninfo in shop.conninfos.values():
        with postgres.connect(conninfo) as connection:
            for order, began, ended in connection.execute(SPAN):
                first[order] = min(began, first.get(order, began))
                last[order] = max(ended, last.get(order, ended))
    return {order: (first[order], last[order]) for order in first}


WORLD = World(customers=20, products=12)


ROWS_LOCKED = {
    CommitWindow.PREPARING: ("product",),
    CommitWindow.PREPARED: ("product", "customer"),
    CommitWindow.COMMITTING: ("product", "customer"),
}


@dataclass(frozen=True)
class Case:
    """One kill: how the order stands, and which other orders wait, before anybody does anything about it."""

    window: StrEnum
    order: Order
    standing: Ending | None  # None: no service knows it
    waiting: list[str] = field(default_factory=list)
    lock_ends: float = 0  # in seconds of Unix time


@dataclass(frozen=True)
class Freed:
    """An order that waited for a dead one: for whose transactions and how long, and what an operator did for it."""

    blockers: list[tuple[str, str]]  # (order, service)
    waited: float  # seconds
    ended: int  # transactions
    more: float  # seconds until it was done
    standing: Ending | None


def open_site(run: Run, database: Endpoint, name: str, fates: Fates = KIND) -> Site:
    prefix = f"{run.name}_{name.split()[-1].replace('-', '_')}"
    if not run.keep:
        for part in (*SERVICES, "own"):
            run.cleanup(partial(postgres.drop_schema, database, f"{prefix}_{part}"))
    return build(database, prefix, fates, WORLD)


def kill_once(run: Run, site: Site, way: Way, window: StrEnum) -> Case:
    """Each window has a customer and a product of its own."""
    number = list(type(window)).index(window)
    order = Order(f"killed-{number}", WORLD.customer_names()[number], WORLD.product_names()[number], 1, 500)
    history = f"{way} {window}".replace(" ", "-")
    run.worker("coordinator", die, site, way, order, RecordedKill(window, history=run.history_file(history))).wait()
    run.judge(history, variant=way, wrong_way=way is not Way.SAGA, fault=f"SIGKILL {window}")
    standing, ends = judge(site.shop).endings.get(order.id), lock_ends(site, order)
    return Case(window, order, standing, held_up(site, way, others(site, order, "early")), ends)


def said(violations: Sequence[str], order: Order) -> str:
    return next((one.partition(": ")[2] for one in violations if one.startswith(order.id)), "nothing wrong")


def free(run: Run, site: Site, dead: Order, patience: float) -> Freed:
    """Another order of the customer waits; after so many seconds an operator decides."""
    began, order = time.monotonic(), others(site, dead, "waiting")[0]
    waiting = run.worker("waiting", wait_for_turn, site, order)
    blockers = until_waiting(site, patience)
    decided = time.monotonic()
    ended = resolve(site.shop, dead.id, commit=False)
    waiting.wait()
    more, standing = time.monotonic() - decided, judge(site.shop).endings.get(order.id)
    return Freed(blockers, decided - began, ended, more, standing)
