"""The benchmark's drains: who empties an outbox of 200,000 events how fast, and which process the CPU time goes to.

Everyone drains the same rows into the same topic for the same consumer, on servers of the run's own.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.relay import wal
from outbox.relay.debezium import Connector
from outbox.stage.measuring import Drain, consume_drain, cpu_seconds, produce_bare, write_backlog
from outbox.stage.processes import Shop, relay
from shared import postgres
from shared.run import Run
from shared.servers.handle import Handle
from shared.wait import until
from shared.worker import Worker

DRAINED, WARM_UP = 200_000, 600_000
UNRECORDED = 500, 0.01, None, "relay", False  # batch, interval, no kill, name, no history


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
        return {name: cpu_seconds(pid) for name, pid in pids.items()}

    def path(self, name: str) -> Path:
        return self.run.folder / f"{name}-{time.monotonic_ns()}"


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
def draining(bench: Bench, target: Callable[..., None], *arguments: object) -> Iterator[None]:
    """A process of ours that drains the outbox, without Connect beside it."""
    with without_connect(bench), bench.run.worker("relay", target, bench.shop, *arguments) as bench.worker:
        yield
    bench.worker = None


@contextlib.contextmanager
def consuming(bench: Bench, count: int) -> Iterator[Callable[[], Drain]]:
    """A consumer that stands ready; the function waits for its result."""
    ready, result = bench.path("ready"), bench.path("drain")
    consumer = bench.run.worker("consumer", consume_drain, bench.shop, count, ready, result)
    until("the consumer to be ready", ready.exists)
    before = bench.cpu()

    def finish() -> Drain:
        consumer.wait(300)
        used = {name: seconds - before.get(name, 0.0) for name, seconds in bench.cpu().items()}
        events, seconds, consumed = json.loads(result.read_text())
        return Drain(events, seconds, used | {"consumer": consumed})

    yield finish
    consumer.stop()


def warm_up(bench: Bench) -> None:
    bench.connector.put()
    with consuming(bench, WARM_UP) as finish:
        write_backlog(bench.shop, WARM_UP, 1000)
        finish()
    bench.connector.stop()


def drain_debezium(bench: Bench) -> Drain:
    """A stopped connector with a backlog, resumed. From the first event consumed: its own resume is not counted."""
    clear(bench)
    write_backlog(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish:
        bench.connector.resume()
        drain = finish()
    bench.connector.stop()
    return drain


def drain_cursor(bench: Bench) -> Drain:
    clear(bench)
    write_backlog(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish, draining(bench, relay, "cursor", *UNRECORDED):
        return finish()


def drain_log(bench: Bench) -> Drain:
    clear(bench)
    wal.set_up(bench.shop.conninfo, bench.shop.slot, bench.schema)
    write_backlog(bench.shop, DRAINED)
    with consuming(bench, DRAINED) as finish, draining(bench, relay, "log", *UNRECORDED):
        drain = finish()
    wal.tear_down(bench.shop.conninfo, bench.shop.slot)
    return drain


def drain_bare(bench: Bench) -> Drain:
    """The limit: the same payloads, keys and headers, ready in memory, by nothing but the producer."""
    with consuming(bench, DRAINED) as finish, draining(bench, produce_bare, bench.path("loaded")):
        return finish()
