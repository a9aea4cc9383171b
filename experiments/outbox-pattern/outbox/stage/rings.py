"""Relays that poll or are woken, under an idle outbox and a loaded one (05), and what ringing costs all writers."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from outbox.relay.polling import PollingPublisher
from outbox.service import Write, write_with_outbox
from outbox.stage.measures import await_counts, idle_scans, scans, waits
from outbox.stage.shop import Looked, Shop, relay, serve, warm_up, watched
from outbox.table import create
from shared.about import About
from shared.history import History
from shared.postgres import Connection, connect
from shared.run import Run

BATCH = 500
RATE = 100.0  # events per second
WARM = 4  # events before those that are measured


@dataclass(frozen=True)
class Seen:
    """What one relay did: scans of an idle outbox, and for how long (s); latency (ms) and history of a loaded one."""

    asked: int
    seconds: float
    p50: float
    history: History

    @property
    def idle(self) -> float:
        """Scans per second after the first one, with which the time begins."""
        return (self.asked - 1) / self.seconds


def observe(
    about: About,
    name: str,
    count: int,
    idle: float,
    way: type[PollingPublisher],
    interval: float,
    write: Write = write_with_outbox,
    prepare: Callable[[str], None] | None = None,
) -> Seen:
    """One relay: first on an idle outbox, for so many seconds, then on one that gets events at a steady rate.

    `prepare` is done to the database before, given its address.
    """
    shop = Shop.open(about.run, name, count, rate=RATE)
    if prepare:
        prepare(shop.conninfo)
    relaying = partial(about.run.worker, "relay", relay, shop, way, BATCH, interval)
    asked, seconds = idle_scans(shop.conninfo, idle, relaying)
    before = scans(shop.conninfo)
    with watched(about.run, shop) as tap, relaying() as worker:
        looked: Looked = worker.ready()
        warm_up(shop, tap, WARM)
        about.run.worker("service", serve, shop, write).wait()
        tap.wait_for(WARM + shop.count)
    await_counts(shop.conninfo, looked.session)
    loaded = (scans(shop.conninfo) - before) / (WARM + shop.count)
    history = about.judge(shop.history.stem)
    note = partial(about.figure, x=interval * 1000, x_label="interval, ms")
    p50 = note("commit to consumer", waits(history, shop.prefix), "ms").value
    seen = Seen(asked, seconds, p50, history)
    note("questions to an idle outbox", seen.idle, "scans/s")
    note("questions to a loaded outbox", loaded, "scans per event")
    return seen


# One statement, one transaction, one round trip: what is compared is the database, not this client.
WRITE = """
with step as (insert into order_steps (order_id, number, status, cents) values (%(order)s, %(number)s, 'placed', 100))
insert into outbox (aggregate_type, aggregate_id, payload, type, source, sequence)
values (%(topic)s, %(order)s, '{"cents":100}', 'shop.order.placed', '/shop/orders', %(number)s)
"""


@dataclass(frozen=True)
class Writers:
    """So many sessions that write steps for so long, as fast as they go."""

    conninfo: str
    topic: str
    sessions: int
    seconds: float
    ring: Callable[[Connection], object] | None = None  # after every commit

    def rate(self) -> float:
        """Transactions per second, of all sessions together; the ring is not counted as one. Raises psycopg.Error."""
        # All are there before the time runs, however long some of them took to connect; or there is an error.
        with ExitStack() as stack, ThreadPoolExecutor(self.sessions) as pool:
            connections = [stack.enter_context(connect(self.conninfo)) for _ in range(self.sessions)]
            began = time.monotonic()
            writing = [pool.submit(self._write, number, at, began) for number, at in enumerate(connections)]
            written = sum(count.result() for count in writing)
            return written / (time.monotonic() - began)

    def _write(self, session: int, connection: Connection, began: float) -> int:
        order, count = f"{self.topic}-{session}-{time.monotonic_ns()}", 0
        while count == 0 or time.monotonic() < began + self.seconds:  # one at least: a rate is never 0
            count += 1
            values = {"order": order, "number": count, "topic": self.topic}
            connection.execute(WRITE, values, prepare=True)
            if self.ring:
                self.ring(connection)
        return count


def compare_writers(variants: Sequence[Writers], rounds: int) -> list[list[float]]:
    """A process: every variant in turn, `rounds` times, so that what else the machine does hits all of them alike.

    Returns of each variant its transactions per second, of each round.
    """
    for writers in variants:
        replace(writers, seconds=0.1).rate()  # warm: plans, pages, the log's first segment
    taken = [[writers.rate() for writers in variants] for _ in range(rounds)]
    return [list(rates) for rates in zip(*taken, strict=True)]


def open_writers(run: Run, name: str, sessions: int, seconds: float) -> Writers:
    """On an outbox of their own, which nobody reads."""
    conninfo = run.schema(f"_writers_{name}")
    create(conninfo)
    return Writers(conninfo, "unread", sessions, seconds)
