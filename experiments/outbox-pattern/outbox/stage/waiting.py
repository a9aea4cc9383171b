"""What the benchmark's cursor does beside somebody else's long transaction, with nothing to do, and killed."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

from outbox.stage.drains import Bench, clear
from outbox.stage.measuring import cpu_seconds, write_backlog
from outbox.stage.processes import announced, relay
from outbox.stage.schedules import Counts, schedule
from outbox.table import create
from shared import kafka
from shared.postgres import connect, create_schema, drop_schema

OPEN = 10.0  # seconds that the transaction stays open, at least
SINCE = 10_000  # rows written since it began
NOISE = 0.02  # seconds between two transactions of others: with none, there is no news, and nothing to look for
INTERVAL = 0.002  # seconds between two polls, where latency counts


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
        write_backlog(bench.shop, SINCE)
        ready, shop = bench.path("ready"), replace(bench.shop)
        arguments = 500, INTERVAL, None, "relay", False, ready
        with bench.run.worker("relay", relay, shop, "cursor", *arguments) as relaying, _noise(shop.conninfo):
            pids = relaying.identity.pid, announced(ready)
            before = sum(map(cpu_seconds, pids))
            began = time.monotonic()
            time.sleep(seconds)
            return 1000 * (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - began)


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
