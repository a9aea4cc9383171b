"""Services that ring for a relay in three ways, relays that poll or are woken, and what ringing costs."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka import Producer

from outbox.relay.notified import NotifiedPublisher, ring
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.service import write_with_outbox
from outbox.stage.processes import WAYS, Shop, noted, relay, run_announced, serve
from outbox.table import create
from outbox.wrong.notifying import ring_in_transaction
from shared.event import Event
from shared.faults import Hook, nowhere
from shared.history import Recorder
from shared.postgres import Connection, connect
from shared.run import Run
from shared.worker import Worker, until_told

QUIET, IN_TRANSACTION, AFTER_COMMIT = "no NOTIFY", "NOTIFY in the transaction", "NOTIFY after the commit"
RINGING = QUIET, IN_TRANSACTION, AFTER_COMMIT
BATCH = 500


def write_and_ring(
    connection: Connection, producer: Producer, aggregate_type: str, event: Event, at: Hook = nowhere
) -> None:
    """The outbox, then the ring. A crash in between costs the event a wait of one interval."""
    write_with_outbox(connection, producer, aggregate_type, event, at)
    ring(connection)


def serve_ringing(shop: Shop) -> None:
    """Worker: the service, with a ring after every commit."""
    WAYS[AFTER_COMMIT] = write_and_ring
    serve(shop, AFTER_COMMIT)


def relay_notified(shop: Shop, batch: int = 500, ready: Path | None = None) -> None:
    """Worker: relay until SIGTERM, woken by rings. `ready` appears as in processes.run_announced."""
    stop = until_told()
    with (
        Recorder(shop.history, "relay") as recorder,
        connect(shop.conninfo) as connection,
        closing(
            NotifiedPublisher(connection, Publisher(shop.broker, on_acknowledged=noted(recorder)), batch)
        ) as relaying,
    ):
        run_announced(relaying, connection, stop, ready)


def relaying(run: Run, shop: Shop, interval: int, ready: Path) -> Worker:
    """A relay that polls every so many ms, or, for 0, is woken. `ready` appears as in processes.run_announced."""
    if interval:
        return run.worker("relay", relay, shop, PollingPublisher, BATCH, interval / 1000, ready=ready)
    return run.worker("relay", relay_notified, shop, BATCH, ready)


def writing(run: Run, shop: Shop, variant: str) -> Worker:
    """The service, which rings itself or leaves it to a trigger, if there is one."""
    if variant == AFTER_COMMIT:
        return run.worker("service", serve_ringing, shop)
    return run.worker("service", serve, shop, "outbox")


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
    ringing: str
    sessions: int
    seconds: float

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
            if self.ringing == AFTER_COMMIT:
                ring(connection)
        return count


def compare_writers(variants: Sequence[Writers], rounds: int) -> dict[str, list[float]]:
    """Worker: every variant in turn, `rounds` times, so that what else the machine does hits all of them alike.

    Returns transactions per second, of each round, by the way of ringing.
    """
    rates: dict[str, list[float]] = {writers.ringing: [] for writers in variants}
    for writers in variants:
        replace(writers, seconds=0.1).rate()  # warm: plans, pages, the log's first segment
    for _ in range(rounds):
        for writers in variants:
            rates[writers.ringing].append(writers.rate())
    return rates


def side_by_side(run: Run, sessions: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Transactions per second of so many sessions, by the way of ringing, each on an outbox of its own."""
    variants = []
    for number, ringing in enumerate(RINGING):
        conninfo = run.schema(f"_writers_{number}")
        create(conninfo)
        if ringing == IN_TRANSACTION:
            ring_in_transaction(conninfo)
        variants.append(Writers(conninfo, "unread", ringing, sessions, seconds))
    rates: dict[str, list[float]] = run.worker("writers", compare_writers, variants, rounds).result(180)
    return rates
