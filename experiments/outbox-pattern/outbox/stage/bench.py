"""What the benchmark does: who empties an outbox of 200,000 events how fast, and which process the CPU time goes to.

Everyone drains the same rows into the same topic for the same consumer, on servers of the run's own. And what the
cursor does beside somebody else's long transaction, with nothing to do, and killed.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event

from outbox.relay import wal
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.wal import WalRelay
from outbox.stage.measures import Drain, consume_drain, produce_bare, write_rows
from outbox.stage.schedules import Counts, schedule
from outbox.stage.shop import Looked, Shop, relay
from outbox.table import create
from shared import kafka, postgres
from shared.postgres import connect, create_schema, drop_schema
from shared.run import Run
from shared.servers.handle import Handle
from shared.usage import Usage
from shared.worker import Worker

DRAINED, WARM_UP = 200_000, 600_000
OPEN = 10.0  # seconds that the transaction stays open, at least
SINCE = 10_000  # rows written since it began
NOISE = 0.02  # seconds between two transactions of others: with none, there is no news, and nothing to look for
INTERVAL = 0.002  # seconds between two polls, where latency counts


@dataclass
class Bench:
    """The servers of the run, and the shop on them."""

    run: Run
    shop: Shop
    connector: Connector
    servers: dict[str, Handle]
    schema: str
    worker: Worker | None = None  # what drains now, where it is a process of ours

    def cpu(self) -> dict[str, float]:
        """CPU seconds of every process that takes part in a drain, but the consumer's."""
        pids = {name: handle.record.processes[0].identity.pid for name, handle in self.servers.items()}
        if self.worker:
            pids["relay"] = self.worker.identity.pid
        return {name: Usage.of([pid]).cpu for name, pid in pids.items()}


def clear(bench: Bench) -> None:
    with postgres.connect(bench.shop.conninfo) as connection:
        connection.execute("truncate outbox, outbox_checkpoint, order_steps")


@contextlib.contextmanager
def without_connect(bench: Bench) -> Iterator[None]:
    """Connect stands still: where a Python relay is at work, there is none. Shorter than its session of 10 s."""
    bench.servers["Connect"].pause()
    try:
        yield
    finally:
        bench.servers["Connect"].resume()


@contextlib.contextmanager
def draining(bench: Bench, target: Callable[..., None], *arguments: object, **options: object) -> Iterator[None]:
    """A process of ours that drains the outbox, without Connect beside it."""
    with without_connect(bench), bench.run.worker("relay", target, bench.shop, *arguments, **options) as bench.worker:
        yield
    bench.worker = None


@contextlib.contextmanager
def consuming(bench: Bench, count: int) -> Iterator[Callable[[], Drain]]:
    """A consumer that stands ready; the function waits for its result."""
    consumer = bench.run.worker("consumer", consume_drain, bench.shop, count)
    consumer.ready()
    before = bench.cpu()

    def finish() -> Drain:
        drained: Drain = consumer.result(300)
        used = {name: seconds - before.get(name, 0.0) for name, seconds in bench.cpu().items()}
        return replace(drained, cpu=used | drained.cpu)

    yield finish
    consumer.stop()


def warm_up(bench: Bench) -> None:
    bench.connector.put()
    with consuming(bench, WARM_UP) as finish:
        write_rows(bench.shop, WARM_UP, 1000)
        finish()
    bench.connector.stop()


def drain_debezium(bench: Bench) -> Drain:
    """A stopped connector with a backlog, resumed. From the first event consumed: its own resume is not counted."""
    clear(bench)
    write_rows(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish:
        bench.connector.resume()
        drain = finish()
    bench.connector.stop()
    return drain


def drain_cursor(bench: Bench) -> Drain:
    clear(bench)
    write_rows(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish, draining(bench, relay, CursorRelay, interval=0.01, recorded=False):
        return finish()


def drain_log(bench: Bench) -> Drain:
    clear(bench)
    wal.set_up(bench.shop.conninfo, bench.shop.slot, bench.schema)
    write_rows(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish, draining(bench, relay, WalRelay, interval=0.01, recorded=False):
        drain = finish()
    wal.tear_down(bench.shop.conninfo, bench.shop.slot)
    return drain


def drain_bare(bench: Bench) -> Drain:
    """The limit: the same payloads, keys and headers, ready in memory, by nothing but the producer."""
    with consuming(bench, DRAINED) as finish, draining(bench, produce_bare):
        return finish()


# Beside a long transaction, and killed.


@contextlib.contextmanager
def open_transaction(conninfo: str) -> Iterator[None]:
    """An unrelated transaction that has written, and does not end."""
    with connect(conninfo) as connection, connection.transaction(force_rollback=True):
        connection.execute("insert into order_steps values ('unrelated', 1, 'placed', 1)")
        yield


@contextlib.contextmanager
def _noise(conninfo: str) -> Iterator[None]:
    """Others at work in the database, which write no events."""
    stop = Event()

    def write() -> None:
        with connect(conninfo) as connection:
            while not stop.wait(NOISE):
                connection.execute("select pg_current_xact_id()")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            stop.set()
            writing.result()


def idle_cpu(bench: Bench, seconds: float, held: bool) -> float:
    """Milliseconds of CPU a second, of the relay and its session of Postgres', with all rows published.

    `held`: under a transaction that was open before the rows were written.
    """
    clear(bench)
    with open_transaction(bench.shop.conninfo) if held else contextlib.nullcontext():
        write_rows(bench.shop, SINCE)
        relaying = bench.run.worker("relay", relay, bench.shop, CursorRelay, interval=INTERVAL, recorded=False)
        with relaying, _noise(bench.shop.conninfo):
            looked: Looked = relaying.ready()
            pids = relaying.identity.pid, looked.session
            before, began = Usage.of(pids), time.monotonic()
            time.sleep(seconds)
            return 1000 * (Usage.of(pids) - before).cpu / (time.monotonic() - began)


def take_schedules(bench: Bench, count: int) -> list[Counts]:
    """Schedules of so many seeds, each on tables and a topic of its own, on the benchmark's servers."""
    return [_take(bench, seed) for seed in range(count)]


def _take(bench: Bench, seed: int) -> Counts:
    database, name = bench.servers["Postgres"].endpoint, f"{bench.schema}_{seed}"
    shop = replace(bench.shop, conninfo=create_schema(database, name), topic=f"{name}.orders", seed=seed)
    create(shop.conninfo)
    kafka.create_topics(shop.broker, [shop.topic])
    counts = schedule(replace(shop, history=bench.run.folder / f"schedule-{seed}" / "history.jsonl"), seed)
    drop_schema(database, name)
    return counts
