"""A relay killed while several services write events of the same orders: what came of it, counted.

`contend` takes a plan; `schedule` takes one that a seed has drawn. The checkers judge both.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from outbox.relay.cursor import CursorRelay
from outbox.stage.counter import AUDIT, Counter, Shape, take_turns
from outbox.stage.shop import RelayClass, Shop, at_work, make_relay, relay
from outbox.windows import RelayWindow
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom, reordered
from shared.faults import Kill, require
from shared.history import Action, History, Outcome, Recorder
from shared.postgres import connect
from shared.tap import Tap
from shared.worker import Worker

TRANSACTIONS = 240
BATCH = 2  # so small that a step (40 pages) does not move all of them: a window is passed three times at least
INTERVAL = 0.002
PAUSE = 0.002  # seconds of a service's work at most, before the lock and again behind it
# What the note that a killed cursor has left had not passed: only that may come twice.
NOTED = "create table noted as select * from outbox_checkpoint where relay = 'cursor'"
NOT_PASSED = """
select outbox.id::text from outbox, noted
where not pg_visible_in_snapshot(xid, previous)
and (current is null or not pg_visible_in_snapshot(xid, current) or outbox.position > noted.position)
"""


@dataclass(frozen=True)
class Plan:
    """One schedule: which relay, killed where; which services; `long`: another transaction is open all the time."""

    way: RelayClass
    kill: Kill
    shape: Shape
    seed: int
    services: int = 4
    orders: int = 3
    long: bool = True

    @classmethod
    def drawn(cls, seed: int) -> "Plan":
        """For the cursor, all else by the seed."""
        rng = random.Random(f"schedule {seed}")
        kill = Kill(rng.choice(list(RelayWindow)), rng.randint(1, 3))
        shape = rng.choice([Shape.UPDATE_FIRST, Shape.AUDIT_FIRST])
        return cls(CursorRelay, kill, shape, seed, rng.randint(2, 6), rng.randint(1, 6), rng.random() < 0.5)


@dataclass(frozen=True)
class Counts:
    """What the checkers have found. Only `doubled` may be more than 0 where the relay is right."""

    written: int  # events that were committed
    lost: int
    reordered: int
    phantom: int  # of nobody, or of a transaction that was rolled back
    doubled: int
    outside: int  # doubled, although the killed cursor's note had passed them; of other relays: 0


def schedule(shop: Shop, seed: int) -> Counts:
    """Take the schedule of a seed at a shop whose tables are fresh. Raises FaultNotFired."""
    return contend(shop, Plan.drawn(seed))


def contend(shop: Shop, plan: Plan) -> Counts:
    """The relay is killed, the next one of its kind does the rest. Raises FaultNotFired where the kill never came."""
    counter = Counter(
        shop.conninfo, shop.topic, shop.history, plan.seed, TRANSACTIONS, plan.orders, plan.services, PAUSE
    )
    counter.open()
    with (
        standing_open(shop, plan.long),
        Recorder(shop.history, "tap") as recorder,
        Tap("consumer", shop.broker, [shop.topic], recorder) as tap,
    ):
        _kill_and_finish(shop, plan, counter, tap)
        tap.catch_up()
    history = History.read(shop.history)
    require(history, f"SIGKILL {plan.kill.window}")
    return _counts(shop, history)


def _kill_and_finish(shop: Shop, plan: Plan, counter: Counter, tap: Tap) -> None:
    logs = shop.history.parent
    services = Worker("services", logs / "services.log", take_turns, counter, plan.shape)
    killed = Worker("relay", logs / "relay.log", relay, shop, plan.way, BATCH, INTERVAL, plan.kill)
    with services, killed, connect(shop.conninfo) as connection:
        killed.wait()
        connection.execute(NOTED)
        with at_work(make_relay(shop, plan.way, connection, BATCH, INTERVAL)):
            services.wait()
            tap.wait_for(len(History.read(shop.history).committed))


@contextmanager
def standing_open(shop: Shop, wanted: bool = True) -> Iterator[None]:
    """A transaction that has written something, which is nobody's, and stays open."""
    with connect(shop.conninfo) as connection, connection.transaction():
        if wanted:
            connection.execute(AUDIT, ["a long transaction"])
        yield


def _counts(shop: Shop, history: History) -> Counts:
    with connect(shop.conninfo) as connection:
        may = {ident for (ident,) in connection.execute(NOT_PASSED)}
        noted = connection.execute("select from noted").fetchone() is not None
    doubled = {anomaly.value for anomaly in duplicate_delivery(history)}
    strange = [*phantom(history), *aborted_read(history)]
    written = sum(1 for _ in history.of(Action.WRITE, Outcome.OK))
    outside = len(doubled - may) if noted else 0
    return Counts(written, len(lost(history)), len(reordered(history)), len(strange), len(doubled), outside)
