"""The rungs of the relay ladder (06): each relay on an outbox of its own, paced, held, let go, and counted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from outbox.relay import wal
from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.wal import WalRelay
from outbox.service import write_with_outbox
from outbox.stage.connectors import debezium
from outbox.stage.measures import Drain, await_counts, consume_drain, scans, waits, write_rows
from outbox.stage.shop import Looked, RelayClass, Shop, relay, serve, warm_up, watched
from shared.about import About
from shared.history import History
from shared.postgres import connect
from shared.run import Run, slug
from shared.usage import Usage

POLL = 0.1  # seconds between polls, of all relays that poll
BATCH = 500
WARM = 20  # events before those that are measured
LOOKS, LOG_WRITTEN, TRANSACTIONS = "looks at the table", "log written", "transactions"
COUNTS = """
select xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8
from pg_stat_database where datname = current_database()
"""


@dataclass
class Rung:
    """One relay on its own outbox, and what it showed."""

    about: About
    way: RelayClass | None  # None: Debezium
    shop: Shop
    backlog: int
    connector: Connector | None = None
    wait: float = 0.0  # median ms from commit to consumer
    rate: float = 0.0  # events per second of a drain
    before: dict[str, float] = field(default_factory=dict)  # Postgres' counts before the drain
    cost: dict[str, float] = field(default_factory=dict)  # by the same counts, per event
    history: History = field(default_factory=lambda: History([]))


@contextmanager
def opened(about: About, way: RelayClass | None, count: int, rate: float, backlog: int) -> Iterator[Rung]:
    """A rung's outbox; for those that read the log a slot, gone at the end, that bears the name of the schema."""
    run, name = about.run, slug(about.variant)
    shop = Shop.open(run, name, count, rate=rate, slot=f"{run.name}_{name}")
    with connect(shop.conninfo) as connection:
        connection.execute("alter table outbox_default set (autovacuum_enabled = off)")  # its log is no relay's
    rung = Rung(about, way, shop, backlog)
    if way is None:
        with debezium(run, shop) as rung.connector:
            yield rung
    elif way is WalRelay:
        wal.set_up(shop.conninfo, shop.slot, shop.slot)
        try:
            yield rung
        finally:
            wal.tear_down(shop.conninfo, shop.slot)
    else:
        yield rung


@dataclass(frozen=True)
class Holding:
    """A relay at work: held for a while, let go again, and the processes that it runs in, as far as they are ours."""

    hold: Callable[[], None]
    go: Callable[[], None]
    pids: list[int]


@contextmanager
def started(rung: Rung) -> Iterator[Holding]:
    """The rung's relay. Python's is paused to be held, its session open; Debezium is stopped, and its start counts."""
    run = rung.about.run
    if rung.connector:
        yield Holding(rung.connector.stop, rung.connector.resume, _connect_pids(run))
    else:
        with run.worker("relay", relay, rung.shop, rung.way, BATCH, POLL, recorded=False) as worker:
            looked: Looked = worker.ready()
            yield Holding(worker.pause, worker.resume, [worker.identity.pid])
        await_counts(rung.shop.conninfo, looked.session)


def _connect_pids(run: Run) -> list[int]:
    """Connect's process; none where it is not ours to look at."""
    if not run.endpoints["connect"].ours:
        return []
    return [process.pid for process in run.control("connect").record.processes[:1]]


def pace(rung: Rung) -> None:
    """Latency at a steady rate, after a few events that are not measured; the history is for the checkers."""
    shop, run = rung.shop, rung.about.run
    with watched(run, shop) as tap:
        warm_up(shop, tap, WARM)
        run.worker("service", serve, shop, write_with_outbox).wait(120)
        tap.wait_for(WARM + shop.count)
    rung.history = rung.about.judge(shop.history.stem)
    late = waits(rung.history, shop.prefix)
    rung.wait = rung.about.figure(f"commit to consumer at {shop.rate:.0f} a second", late, "ms").value


def drain(rung: Rung, relaying: Holding) -> None:
    """A backlog written while the relay is held, then let go: events per second, and CPU seconds of the relay."""
    consumer = rung.about.run.worker("consumer", consume_drain, rung.shop, rung.backlog)
    consumer.ready()
    relaying.hold()
    write_rows(rung.shop, rung.backlog, per_transaction=1000)
    rung.before, used, went = counts(rung.shop), Usage.of(relaying.pids), time.monotonic()
    relaying.go()
    drained: Drain = consumer.result(300)
    if rung.way and issubclass(rung.way, PollingPublisher):
        rung.shop.wait_until_published()  # the consumer has everything; the relay may still be noting it
    cpu = (Usage.of(relaying.pids) - used).cpu
    # From the moment it was let go to the last event consumed. Debezium's resume is not counted: from the first event.
    seconds = drained.seconds if rung.connector else drained.ended - went
    rung.rate = rung.about.figure("drain", drained.events / seconds, "events/s").value
    if relaying.pids:
        rung.about.figure("CPU of the relay per 1,000 events", cpu * 1000 / rung.backlog * 1000, "ms")


def weigh(rung: Rung) -> None:
    """What the drain cost the database, per event, when the relay has ended: its session hands in its last counts."""
    after = counts(rung.shop)
    rung.cost = {name: (after[name] - rung.before[name]) / rung.backlog for name in after}
    for name, value in rung.cost.items():
        rung.about.figure(f"{name} per event", value, "B" if name == LOG_WRITTEN else "")


def counts(shop: Shop) -> dict[str, float]:
    """Postgres' own counts: transactions and log are those of the whole server, on which nothing else should run."""
    with psycopg.connect(shop.conninfo) as connection:
        transactions, log = connection.execute(COUNTS).fetchone() or (0, 0.0)
    return {TRANSACTIONS: transactions, LOOKS: scans(shop.conninfo), LOG_WRITTEN: log}
