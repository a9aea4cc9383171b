"""Several services write events of the same orders: an aggregate's order is then made by its lock, not by a writer.

Three shapes of the transaction. Each ends with the order's row updated, which gives the event its number. Behind them,
transactions taken step by step, so that the race which an experiment is about is certain on every machine; and one
race that cannot be had by hand: see `turns`.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import psycopg

from outbox.table import insert_event
from shared.event import Event
from shared.history import Action, Outcome, Recorder, now
from shared.postgres import Connection, connect, number
from shared.threads import paced

SCHEMA = """
create table orders (order_id text primary key, version bigint not null default 0);
create table audit (note text not null);
"""
LOCK = "update orders set version = version + 1 where order_id = %s returning version"
NUMBER = "update outbox set sequence = %s where id = %s"
AUDIT = "insert into audit values (%s)"
OVERTAKEN = """
select count(*) from (select xid < lag(xid) over (partition by aggregate_id order by sequence) as older from outbox) at
where older
"""
RATE = 50  # events per second beside a long transaction
ROLLED_BACK = 0.05  # share of transactions that are rolled back after all


class Shape(StrEnum):
    """What a service does in its transaction, in this order."""

    UPDATE_FIRST = "update the order, insert the event"
    AUDIT_FIRST = "write an audit row, update the order, insert the event"
    EVENT_FIRST = "insert the event, update the order"  # WRONG: it has its place before the order's lock

    @property
    def label(self) -> str:
        """As figures and files have it."""
        return self.name.lower().replace("_", "-")


SHAPES = Shape.UPDATE_FIRST, Shape.AUDIT_FIRST  # the right ones


@dataclass(frozen=True)
class Counter:
    """Services at one counter: who writes where, how many events, of which orders."""

    conninfo: str
    topic: str
    history: Path
    seed: int
    count: int  # transactions of all services together
    orders: int
    services: int
    pause: float = 0.0  # seconds of work at most, before the lock and again behind it
    slot: str = ""  # of the log relay, by the name of the schema

    @property
    def keys(self) -> list[str]:
        return [f"order-{number}" for number in range(self.orders)]

    def open(self) -> None:
        """Create its orders."""
        with connect(self.conninfo) as connection:
            open_orders(connection, self.keys)

    def of(self, shape: Shape) -> "Counter":
        """The same, with a history for the transactions of this shape."""
        return replace(self, history=self.history.with_stem(f"{self.history.stem}-{shape.label}"))


def open_orders(connection: Connection, orders: Sequence[str]) -> None:
    """Create the orders, none of which has an event yet."""
    connection.execute(SCHEMA)
    connection.cursor().executemany("insert into orders values (%s)", [[order] for order in orders])


def take_turns(counter: Counter, shape: Shape) -> None:
    """A process: the services, each in a thread with a session of its own, at orders drawn by the seed."""
    with ThreadPoolExecutor(counter.services) as pool:
        for done in [pool.submit(_change_orders, counter, shape, who) for who in range(counter.services)]:
            done.result()


@contextmanager
def changing(connection: Connection, shape: Shape, event: Event, topic: str, pause: float = 0.0) -> Iterator[Event]:
    """The transaction of a service, its work done and not committed: the event with its number, which is in the outbox.

    `pause`: seconds between its first write and the lock.
    """
    with connection.transaction():
        if shape is Shape.AUDIT_FIRST:
            connection.execute(AUDIT, [event.id])
        if shape is Shape.EVENT_FIRST:
            insert_event(connection, event, topic)
        time.sleep(pause)
        [(version,)] = connection.execute(LOCK, [event.subject]).fetchall()
        event = replace(event, sequence=version)
        if shape is Shape.EVENT_FIRST:
            connection.execute(NUMBER, [version, event.id])
        else:
            insert_event(connection, event, topic)
        yield event


def _change_orders(counter: Counter, shape: Shape, who: int) -> None:
    rng = random.Random(f"{counter.seed} {who}")
    with Recorder(counter.history, f"service-{who}") as recorder, connect(counter.conninfo) as connection:
        for _ in range(counter.count // counter.services):
            event = Event("shop.order.changed", "/shop/orders", rng.choice(counter.keys), {"service": who})
            before, behind, undone = rng.uniform(0, counter.pause), rng.uniform(0, counter.pause), rng.random()
            with changing(connection, shape, event, counter.topic, before) as changed:
                time.sleep(behind)
                if undone < ROLLED_BACK:
                    raise psycopg.Rollback
            outcome = Outcome.FAIL if undone < ROLLED_BACK else Outcome.OK
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=changed.sequence)


# By hand.


def changed(order: str) -> Event:
    """An event of the order, which gets its number from `changing`."""
    return Event("shop.order.changed", "/shop/orders", order, {})


def written(recorder: Recorder, event: Event) -> None:
    """Write down that the event's transaction has committed."""
    recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)


def overtake(counter: Counter, passed: Callable[[str], object]) -> None:
    """Three transactions at two orders. Neither positions nor ids are in the order of commits, or of one order's lock.

    The eldest writes its audit row, and is overtaken at its order by the youngest. The middle one has the lowest
    position, and commits last, when `passed` says that the eldest's event, given its id, was read.
    """
    one, other = counter.keys[:2]
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(counter.history, "by-hand"))
        eldest, middle, youngest = (stack.enter_context(connect(counter.conninfo)) for _ in range(3))
        with ExitStack() as still_open:
            with eldest.transaction():
                eldest.execute(AUDIT, ["it has its id"])
                low = still_open.enter_context(changing(middle, Shape.AUDIT_FIRST, changed(other), counter.topic))
                with changing(youngest, Shape.AUDIT_FIRST, changed(one), counter.topic) as first:
                    pass
                written(recorder, first)
                with changing(eldest, Shape.UPDATE_FIRST, changed(one), counter.topic) as second:
                    pass
            written(recorder, second)
            passed(second.id)
        written(recorder, low)


def write_steadily(counter: Counter, seconds: float) -> dict[str, int]:
    """One service that changes an order RATE times a second; returns every event's moment."""
    moments = {}
    with Recorder(counter.history, "steady") as recorder, connect(counter.conninfo) as connection:
        for _ in paced(range(round(seconds * RATE)), RATE):
            with changing(connection, Shape.UPDATE_FIRST, changed(counter.keys[0]), counter.topic) as event:
                moments[event.id] = now()
            written(recorder, event)
    return moments


def insert_first(counter: Counter) -> None:
    """EVENT_FIRST at one order: who has inserted its event first gets the order's lock second."""
    with (
        Recorder(counter.history, "by-hand") as recorder,
        connect(counter.conninfo) as slow,
        connect(counter.conninfo) as quick,
    ):
        late = changed(counter.keys[0])
        with slow.transaction():
            insert_event(slow, late, counter.topic)
            with changing(quick, Shape.EVENT_FIRST, changed(late.subject), counter.topic) as early:
                pass
            written(recorder, early)
            [(version,)] = slow.execute(LOCK, [late.subject]).fetchall()
            slow.execute(NUMBER, [version, late.id])
        written(recorder, replace(late, sequence=version))


def turns(counter: Counter, shape: Shape) -> None:
    """A process: the services take their turns, and once more, until one has overtaken an older one at its order.

    An UPDATE has its transaction's id before it waits for the row. When the row is free again, who comes just then may
    be sooner there than who is being woken. Nobody can step that by hand; it is never long in coming.
    """
    with connect(counter.conninfo) as connection:
        before = overtaken(connection)
        while overtaken(connection) == before:
            take_turns(counter, shape)
            counter = replace(counter, seed=counter.seed + 1)


def overtaken(connection: Connection) -> int:
    """How many events are of a transaction that is older than that of their order's event before."""
    return number(connection, OVERTAKEN)


Numbered = tuple[str, int]  # an event, by its order and its number


class Services:
    """Services taken step by step in one thread, so that any interleaving can be had again; one session each.

    A transaction begins with its first step; `committed` is what a reader has to find.

    Who would wait for another one's lock does not take the step, since it would keep the thread.
    """

    def __init__(self, sessions: list[Connection], topic: str = "orders") -> None:
        self.sessions = sessions
        self.topic = topic
        self.locked: dict[str, int] = {}  # order -> who has it
        self.open: dict[int, list[Numbered]] = {}  # who is in a transaction -> its events
        self.committed: list[Numbered] = []

    def write(self, who: int) -> None:
        """Something else, which draws the transaction's id."""
        self._in_transaction(who).execute(AUDIT, ["something"])

    def lock(self, who: int, order: str) -> bool:
        """Have the order; False where another one has it."""
        if self.locked.setdefault(order, who) != who:
            return False
        self._in_transaction(who).execute("select from orders where order_id = %s for update", [order])
        return True

    def insert(self, who: int, *orders: str) -> None:
        """The next event of each order, with its lock."""
        for order in orders:
            if self.lock(who, order):
                [(number,)] = self.sessions[who].execute(LOCK, [order]).fetchall()
                event = Event("shop.order.changed", "/shop/orders", order, sequence=number)
                insert_event(self.sessions[who], event, self.topic)
                self.open[who].append((order, number))

    def commit(self, who: int) -> None:
        self.committed += self._end(who, "commit")

    def rollback(self, who: int) -> None:
        self._end(who, "rollback")

    def anew(self) -> None:
        """As at the beginning; positions and transaction ids go on."""
        for who in list(self.open):
            self.rollback(who)
        self.committed = []
        for statement in ("delete from outbox", "delete from audit", "update orders set version = 0"):
            self.sessions[0].execute(statement)

    def _in_transaction(self, who: int) -> Connection:
        if who not in self.open:
            self.sessions[who].execute("begin")
            self.open[who] = []
        return self.sessions[who]

    def _end(self, who: int, how: str) -> list[Numbered]:
        if who in self.open:
            self.sessions[who].execute(how)
        self.locked = {order: holder for order, holder in self.locked.items() if holder != who}
        return self.open.pop(who, [])
