"""The rungs of the relay ladder (06): each relay on an outbox of its own, held, let go, and counted."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg

from outbox.relay import wal
from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.wal import WalRelay
from outbox.stage.measuring import Drain, await_counts, consume_drain, cpu_seconds, scans, write_backlog
from outbox.stage.processes import RelayClass, Shop, announced, relay
from outbox.stage.shops import open_shop
from outbox.table import pending
from shared.history import History
from shared.postgres import connect
from shared.run import Run
from shared.wait import until

POLL = 0.1  # seconds between polls, of all relays that poll
BATCH = 500
LOOKS, LOG_WRITTEN, TRANSACTIONS = "looks at the table", "log written", "transactions"
COUNTS = """
select xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8
from pg_stat_database where datname = current_database()
"""


@dataclass
class Rung:
    """One relay on its own outbox, and what it showed."""

    kind: str
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
def opened(run: Run, kind: str, way: RelayClass | None, count: int, rate: float, backlog: int) -> Iterator[Rung]:
    """A rung's outbox; for those that read the log a slot, gone at the end, that bears the name of the schema."""
    name = kind.replace(", ", "_").replace(" ", "_").lower()
    shop = open_shop(run, name, count, rate, slot=f"{run.name}_{name}")
    with connect(shop.conninfo) as connection:
        connection.execute("alter table outbox_default set (autovacuum_enabled = off)")  # its log is no relay's
    rung = Rung(kind, way, shop, backlog)
    if way is None:
        with Connector(run.endpoints["connect"], run.endpoints["postgres"], shop.slot, shop.slot).running() as made:
            rung.connector = made
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
class Relaying:
    """A relay at work: held for a while, let go again, and the CPU seconds it has used so far."""

    hold: Callable[[], None]
    go: Callable[[], None]
    cpu: Callable[[], float]


@contextmanager
def relaying(run: Run, rung: Rung) -> Iterator[Relaying]:
    """The rung's relay. Python's is paused to be held, its session open; Debezium is stopped, and its start counts."""
    if rung.connector:
        pid = _connect_pid(run)
        yield Relaying(rung.connector.stop, rung.connector.resume, lambda: cpu_seconds(pid) if pid else 0.0)
    else:
        ready = run.folder / f"{rung.shop.history.stem}.relaying"
        at_work = relay, rung.shop, rung.way, BATCH, POLL, None, "relay", False, ready
        with run.worker("relay", *at_work) as worker:
            session = announced(ready)
            yield Relaying(worker.pause, worker.resume, lambda: cpu_seconds(worker.identity.pid))
        await_counts(rung.shop.conninfo, session)


def _connect_pid(run: Run) -> int:
    """Connect's process; 0 where it is not ours to look at."""
    if not run.endpoints["connect"].ours:
        return 0
    processes = run.control("connect").record.processes
    return processes[0].pid if processes else 0


def drain(run: Run, rung: Rung, at_work: Relaying) -> tuple[float, float]:
    """A backlog written while the relay is held, then let go: (events per second, CPU seconds of the relay)."""
    shop, count = rung.shop, rung.backlog
    ready, result = run.folder / f"{shop.history.stem}.ready", run.folder / f"{shop.history.stem}.drain"
    consumer = run.worker("consumer", consume_drain, shop, count, ready, result)
    until("the consumer to be ready", ready.exists)
    at_work.hold()
    write_backlog(shop, count, per_transaction=1000)
    rung.before, used, went = counts(shop), at_work.cpu(), time.time()
    at_work.go()
    consumer.wait(300)
    _settled(rung)
    used = at_work.cpu() - used
    # From the moment it was let go to the last event consumed. Debezium's resume is not counted: from the first event.
    drained = Drain(*json.loads(result.read_text())[:2])
    if not rung.connector:
        drained = replace(drained, seconds=result.stat().st_mtime - went)
    return drained.rate, used


def _settled(rung: Rung) -> None:
    """The consumer has everything; the relay may still be noting it."""
    if rung.way and issubclass(rung.way, PollingPublisher):
        with connect(rung.shop.conninfo) as connection:
            until("everything to be noted", lambda: pending(connection) == 0)


def cost(rung: Rung) -> dict[str, float]:
    """What the drain cost the database, per event, when the relay has ended: its session hands in its last counts."""
    after = counts(rung.shop)
    return {name: (after[name] - rung.before[name]) / rung.backlog for name in after}


def counts(shop: Shop) -> dict[str, float]:
    """Postgres' own counts: transactions and log are those of the whole server, on which nothing else should run."""
    with psycopg.connect(shop.conninfo) as connection:
        transactions, log = connection.execute(COUNTS).fetchone() or (0, 0.0)
    return {TRANSACTIONS: transactions, LOOKS: scans(shop.conninfo), LOG_WRITTEN: log}
