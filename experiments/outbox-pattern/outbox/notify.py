"""A polling publisher that sleeps until it is woken: LISTEN on one side, NOTIFY on the other.

A notification is a hint, and may be lost (nobody listens while the relay is down; the writer dies before it rings): the
relay polls all the same, once in `interval`. Two ways to ring. In the write transaction, by a trigger: popular, and it
costs every writer dearly, since a transaction that notifies holds one lock for the whole cluster while its commit is
flushed (PostgreSQL source, async.c, PreCommit_Notify). After the commit, without waiting for the disk: the lock is held
for no flush, and what is lost with a crash is a hint.
"""

import json
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka import Producer
from psycopg import sql

from outbox.processes import WAYS, Shop, run_announced, serve
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher, attempt
from outbox.service import write_with_outbox
from shared.event import Event
from shared.faults import Hook, nowhere
from shared.history import Recorder
from shared.postgres import Connection, connect

# One channel for each outbox: channels are known in the whole database.
CHANNEL = "'outbox_' || current_schema()"
TRIGGER = """
create function ring_outbox() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox_' || tg_table_schema, '');
    return null;
end $$;
create trigger ring_outbox after insert on outbox for each statement execute function ring_outbox();
"""
# In one statement, which is one transaction: it does not wait for the disk, and the lock is not held meanwhile.
RING = f"select set_config('synchronous_commit', 'off', true), pg_notify({CHANNEL}, '')"
SLICE = 0.1  # seconds between two looks at whether to stop
QUIET, IN_TRANSACTION, AFTER_COMMIT = "no NOTIFY", "NOTIFY in the transaction", "NOTIFY after the commit"
RINGING = QUIET, IN_TRANSACTION, AFTER_COMMIT
PATIENCE = 1.0  # seconds that a relay waits for a ring before it polls all the same


@dataclass
class NotifiedPublisher(PollingPublisher):
    """Polls when it is rung for, and once in `interval` in case a ring was lost."""

    interval: float = PATIENCE

    def __post_init__(self) -> None:
        super().__post_init__()
        # Before the first poll: what is written between the two rings already.
        row = self.connection.execute(f"select {CHANNEL}").fetchone()
        self.connection.execute(sql.SQL("listen {}").format(sql.Identifier(row[0] if row else "")))

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if attempt(self.step, stop) < self.batch:
                self._sleep(stop)

    def _sleep(self, stop: threading.Event) -> None:
        """Until rung for; rings that came while we polled count."""
        end = time.monotonic() + self.interval
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            if any(True for _ in self.connection.notifies(timeout=min(left, SLICE), stop_after=1)):
                return


def ring_in_transaction(conninfo: str) -> None:
    """WRONG under load: a trigger that notifies in every transaction that writes an event."""
    with connect(conninfo) as connection:
        connection.execute(TRIGGER)


def ring(connection: Connection) -> None:
    """Wake the relay. Call it after the commit; a transaction around it would bring back what it avoids."""
    connection.execute(RING, prepare=True)


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
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with (
        Recorder(shop.history, "relay") as recorder,
        connect(shop.conninfo) as connection,
        closing(NotifiedPublisher(connection, Publisher(shop.broker, recorder=recorder), batch)) as relaying,
    ):
        run_announced(relaying, connection, stop, ready)


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


def compare_writers(variants: Sequence[Writers], rounds: int, result: Path) -> None:
    """Worker: every variant in turn, `rounds` times, so that what else the machine does hits all of them alike.

    Writes {ringing: [transactions per second of each round]} to `result`.
    """
    rates: dict[str, list[float]] = {writers.ringing: [] for writers in variants}
    for writers in variants:
        replace(writers, seconds=0.1).rate()  # warm: plans, pages, the log's first segment
    for _ in range(rounds):
        for writers in variants:
            rates[writers.ringing].append(writers.rate())
    result.write_text(json.dumps(rates))
