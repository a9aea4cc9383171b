"""Ways to have an order carried out by four services, as processes that an experiment starts and kills."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from psycopg import Xid
from psycopg.errors import LockNotAvailable

from saga import plain
from saga.order import Order, World, orders
from saga.services.invariant import Ending, Standing, judge
from saga.services.shop import SERVICES, Services
from saga.stage.fates import KIND, FatedShop, Fates, create
from saga.stage.killing import RecordedKill, hook
from saga.windows import CallWindow, Hook, nowhere
from saga.wrong import nosaga
from saga.wrong.nosaga import CommitWindow, Locked, resolve
from shared import postgres
from shared.faults import Faults
from shared.postgres import Connection
from shared.run import Run
from shared.servers.handle import Handle
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


@dataclass(frozen=True)
class Way:
    """How an order is carried out: a function, and what is said of it."""

    name: str
    carry_out: Callable[..., object]
    wrong: bool = True

    def __str__(self) -> str:
        return self.name

    def bound(self, premises: "Premises", own: Connection, services: Services, at: Hook) -> Callable[[Order], object]:
        """The function, given all but the order."""
        raise NotImplementedError


class ByServices(Way):
    """(services, order, at)"""

    def bound(self, premises: "Premises", own: Connection, services: Services, at: Hook) -> Callable[[Order], object]:
        return partial(self.carry_out, services, at=at)


class WithDatabase(Way):
    """(a database of its own, services, order, at)"""

    def bound(self, premises: "Premises", own: Connection, services: Services, at: Hook) -> Callable[[Order], object]:
        return partial(self.carry_out, own, services, at=at)


class ByDatabases(Way):
    """(shop, order, at)"""

    def bound(self, premises: "Premises", own: Connection, services: Services, at: Hook) -> Callable[[Order], object]:
        return partial(self.carry_out, premises.shop, at=at)


@dataclass(frozen=True)
class Premises:
    """The four services, and the database of whoever has them work together: locks, and the log of sagas."""

    shop: FatedShop
    own: str


def build(database: Endpoint, prefix: str, fates: Fates = KIND, world: World | None = None) -> Premises:
    shop = create(database, prefix, fates, world)
    own = postgres.create_schema(database, f"{prefix}_own")
    with postgres.connect(own) as connection:
        connection.execute(f"{nosaga.LOCKS}; {plain.LOG}")
    return Premises(shop, own)


@contextmanager
def carrier(premises: Premises, way: Way, at: Hook = nowhere) -> Iterator[Callable[[Order], None]]:
    """A function that carries out orders. It raises Locked when one would have to wait too long for another."""
    with postgres.connect(premises.own) as own, premises.shop.open() as services:
        for connection in services.connections.values():
            connection.execute(LOCK_TIMEOUT)
        bound = way.bound(premises, own, services, at)

        def carry_out(order: Order) -> None:
            try:
                bound(order)
            except LockNotAvailable as error:
                raise Locked(f"{order.id}: {error}") from error

        yield carry_out


def die(premises: Premises, way: Way, order: Order, kill: RecordedKill) -> None:
    """A process that carries out an order and is killed meanwhile."""
    with hook(kill) as at, carrier(premises, way, at) as carry_out:
        carry_out(order)


def held_up(premises: Premises, way: Way, orders: Iterable[Order]) -> list[str]:
    """Have these orders carried out; returns those that another order keeps from it."""
    waiting = []
    with carrier(premises, way) as carry_out:
        for order in orders:
            try:
                carry_out(order)
            except Locked:
                waiting.append(order.id)
    return waiting


def wait_for_turn(premises: Premises, order: Order) -> None:
    """A process: an order in two-phase commit that waits for locks as long as it takes."""
    nosaga.two_phase(premises.shop, order, patience=0)


def until_waiting(premises: Premises, seconds: float) -> list[tuple[str, str]]:
    """Wait until a session has waited so long for a prepared transaction; whose those are: (order, service)."""
    with postgres.connect(premises.own) as connection:
        what = f"a session to wait {seconds:g} s for a prepared transaction"
        found = [
            Xid.from_string(gid) for (gid,) in until(what, lambda: connection.execute(WAITING, [seconds]).fetchall())
        ]
    return [(xid.gtrid, xid.bqual or "") for xid in found]


def until_free(premises: Premises) -> None:
    """Wait until every lease has run out."""
    with postgres.connect(premises.own) as locks:
        until("every lease to run out", lambda: locks.execute(HELD).fetchone() is None)


def lock_ends(premises: Premises, order: Order) -> float:
    """When the order's lock ends by itself, in seconds of Unix time: never is infinite, and 0 if it has none."""
    with postgres.connect(premises.own) as locks:
        return nosaga.lock_ends(locks, order.id) or 0.0


def others(premises: Premises, order: Order, when: str) -> list[Order]:
    """Orders that come later: of the same customer, of the same product, and of neither."""
    customer, product = premises.shop.world.customer_names()[-1], premises.shop.world.product_names()[-1]
    whose = {
        "customer": (order.customer, product),
        "product": (customer, order.product),
        "neither": (customer, product),
    }
    return [Order(f"{when}-{order.id}-{same}", *of, 1, 500) for same, of in whose.items()]


def entered(premises: Premises, order: Order, before: float) -> list[str]:
    """Which others of the same customer or product a service has answered before this second of Unix time."""
    came = {one.id for when in ("early", "late") for one in others(premises, order, when)[:2]}
    return [ident for ident, (first, _) in spans(premises.shop).items() if ident in came and first < before]


Unpaid = tuple[Ending | None, str]  # how an order ends that its customer cannot pay, and what is wrong then


def cannot_pay(premises: Premises, way: Way) -> Unpaid:
    """An order that its customer cannot pay."""
    world = premises.shop.world
    order = Order("unpaid", world.customer_names()[-2], world.product_names()[-2], 1, world.balance + 1)
    held_up(premises, way, [order])
    standing = judge(premises.shop)
    return standing.endings.get(order.id), "; ".join(one for one in standing.violations if one.startswith(order.id))


def carry_out_all(premises: Premises, orders: Iterable[Order], kill: RecordedKill | None = None) -> None:
    """A process: the sagas that have not ended, then those of the orders that have not begun."""
    with hook(kill) as at, postgres.connect(premises.own) as log, premises.shop.open() as services:
        plain.resume(log, services)
        for order in orders:
            if not plain.known(log, order):
                plain.carry_out(log, services, order, at)


def watch(premises: Premises, worker: Worker) -> list[bool]:
    """Look until the process is dead, or done; whether each look saw an order half done."""
    looks = []
    while worker.alive():
        looks.append(judge(premises.shop).count(Ending.INCONSISTENT) > 0)
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
class Aftermath:
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


def open_premises(run: Run, database: Endpoint, name: str, fates: Fates = KIND) -> Premises:
    prefix = f"{run.name}_{name.split()[-1].replace('-', '_')}"
    if not run.keep:
        for part in (*SERVICES, "own"):
            run.cleanup(partial(postgres.drop_schema, database, f"{prefix}_{part}"))
    return build(database, prefix, fates, WORLD)


def kill_once(run: Run, premises: Premises, way: Way, window: StrEnum) -> Aftermath:
    """Each window has a customer and a product of its own."""
    number = list(type(window)).index(window)
    order = Order(f"killed-{number}", WORLD.customer_names()[number], WORLD.product_names()[number], 1, 500)
    history = f"{way} {window}".replace(" ", "-")
    run.worker("coordinator", die, premises, way, order, RecordedKill(window, history=run.history_file(history))).wait()
    run.judge(history, variant=way.name, wrong_way=way.wrong, fault=f"SIGKILL {window}")
    standing, ends = judge(premises.shop).endings.get(order.id), lock_ends(premises, order)
    return Aftermath(window, order, standing, held_up(premises, way, others(premises, order, "early")), ends)


def kill(run: Run, premises: Premises, way: Way, windows: Iterable[StrEnum]) -> list[Aftermath]:
    """An order that is carried out in this way, killed in each of these windows."""
    return [kill_once(run, premises, way, window) for window in windows]


def resume(run: Run, premises: Premises) -> None:
    """The next process takes up the sagas that are in the log."""
    run.worker("next", carry_out_all, premises, []).wait()


def held_up_late(premises: Premises, way: Way, killed: Iterable[Aftermath]) -> dict[StrEnum, list[str]]:
    """Others come again, by what was killed before: those that an order keeps from it."""
    return {each.window: held_up(premises, way, others(premises, each.order, "late")) for each in killed}


def too_early(premises: Premises, killed: Iterable[Aftermath]) -> list[str]:
    """The others that a service has answered before the lock ended that they had to wait for."""
    return [order for each in killed for order in entered(premises, each.order, before=each.lock_ends)]


def crash(run: Run, server: Handle, way: Way) -> None:
    """kill -9 the database, and start it again."""
    with Faults(run.recorder("database", "experiment")).down(server):
        pass
    run.judge("database", variant=way.name, wrong_way=way.wrong, fault="SIGKILL, restart")


@dataclass(frozen=True)
class Watched:
    """Sagas that were looked at from outside all the time, while their process was killed and followed by another."""

    looks: list[bool]  # whether each saw an order half done
    dead: int  # orders half done while there was no process
    spans: list[float]  # milliseconds for which orders were half done
    unfinished: int  # sagas in the end
    standing: Standing


def look(run: Run, way: Way, count: int) -> Watched:
    """Orders under the seeded failures, looked at from outside all the time; the process is killed in the middle."""
    premises = open_premises(run, run.endpoints["postgres"], "look", Fates(run.seed))
    todo = list(orders(run.seed, count, WORLD))
    kill = RecordedKill(CallWindow.CHARGED, nth=count // 2, history=run.history_file("look"))
    looks = watch(premises, run.worker("saga", carry_out_all, premises, todo, kill))
    run.judge("look", variant=way.name, fault=f"SIGKILL {CallWindow.CHARGED}")
    dead = len(judge(premises.shop).inconsistent)
    looks += watch(premises, run.worker("saga", carry_out_all, premises, todo))
    lasted = [1000 * (last - first) for first, last in spans(premises.shop).values()]
    with postgres.connect(premises.own) as log:
        return Watched(looks, dead, lasted, len(plain.unfinished(log)), judge(premises.shop))


def said(violations: Sequence[str], order: Order) -> str:
    return next((one.partition(": ")[2] for one in violations if one.startswith(order.id)), "nothing wrong")


def free(run: Run, premises: Premises, dead: Order, patience: float) -> Freed:
    """Another order of the customer waits; after so many seconds an operator decides."""
    began, order = time.monotonic(), others(premises, dead, "waiting")[0]
    waiting = run.worker("waiting", wait_for_turn, premises, order)
    blockers = until_waiting(premises, patience)
    decided = time.monotonic()
    ended = resolve(premises.shop, dead.id, commit=False)
    waiting.wait()
    more, standing = time.monotonic() - decided, judge(premises.shop).endings.get(order.id)
    return Freed(blockers, decided - began, ended, more, standing)
