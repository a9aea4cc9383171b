"""The relays against Debezium at its best, and what the outbox costs: one run, one JSON object.

Debezium gets the full JIT, 1 GB of heap, a warm-up of 600,000 events, `poll.interval.ms=10`, larger batches and queues
than the default, and is measured from the first to the last event consumed, as everybody else: same table, same payload
of about 200 bytes, same ten headers, same consumer. All servers are the run's own, with nothing else on them.
"""

import contextlib
import threading
import time
from dataclasses import replace

from outbox.relay import wal
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.wal import WalRelay
from outbox.stage.bench import (
    DRAINED,
    INTERVAL,
    OPEN,
    WARM_UP,
    Bench,
    clear,
    consuming,
    drain_bare,
    drain_cursor,
    drain_debezium,
    drain_log,
    idle_cpu,
    open_transaction,
    take_schedules,
    warm_up,
)
from outbox.stage.measures import Drain, consume_clocked, place_row_alone, watch_memory, write_paced, write_rows
from outbox.stage.shop import RelayClass, Shop, relay
from outbox.stage.targets import TARGETS
from outbox.table import create
from outbox.writer import place_pipelined

from shared import kafka, postgres
from shared.run import Run
from shared.targets import Benchmark

experiment = Benchmark(
    title="Outbox relays against Debezium",
    targets=TARGETS,
    quick="fewer rounds: under four minutes",
)
SCHEDULES = 50  # of services, kills and a long transaction, each drawn by its seed
LONG = 1_000_000  # events of the drain whose memory is watched
# Debezium documentation, "PostgreSQL connector properties": larger batches and queues for throughput; and Kafka's
# producer documentation: a few ms of linger and larger batches. For latency the producer's defaults, without linger.
FOR_RATE = {
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "producer.override.linger.ms": "5",
    "producer.override.batch.size": "262144",
}
FOR_LATENCY = {"producer.override.linger.ms": "0"}


@experiment.run
def main(run: Run) -> None:
    bench = set_up(run)
    rounds = run.pick(1, 2, 5)
    with run.step(f"Debezium: warm up with {WARM_UP:,} events"):
        warm_up(bench)
    contenders = {"Debezium": drain_debezium, "cursor": drain_cursor, "log": drain_log, "bare producer": drain_bare}
    drains: dict[str, list[Drain]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, drain in contenders.items():
            with run.step(f"round {number + 1}: {name} drains {DRAINED:,} events"):
                drains[name].append(drain(bench))
            run.output.say(f"{drains[name][-1].rate:,.0f} events/s")
    median = {
        name: run.figure("drain", [drain.rate for drain in found], "events/s", variant=name).value
        for name, found in drains.items()
    }
    run.figure("drain_vs_debezium", max(median["cursor"], median["log"]) / median["Debezium"], "x")
    run.figure("wal_drain_vs_debezium", median["log"] / median["Debezium"], "x")
    note_cpu(run, drains)
    compare_latency(bench)
    with run.step(f"the cursor, beside a transaction that is open for {OPEN:.0f} s"):
        compare_waiting(bench)
    with run.step(f"{SCHEDULES} schedules: the cursor is killed while services change the same orders"):
        count_anomalies(bench)
    with run.step("what the outbox adds to a transaction"):
        compare_transactions(bench)
    with run.step(f"memory of a relay that drains {LONG:,} events"):
        watch_relay(bench)
    experiment.claim_targets(run)


def note_cpu(run: Run, drains: dict[str, list[Drain]]) -> None:
    """Where the time goes: all processes share the machine's cores, so that their sum is what limits a drain."""
    spent_by: dict[str, float] = {}
    for name, found in drains.items():
        for process in found[0].cpu:
            spent = [drain.cpu[process] / drain.events * 1e6 for drain in found]
            run.figure("CPU of a drain, per event", spent, "us", variant=name, x=process)
        total = [sum(drain.cpu.values()) / drain.events * 1e6 for drain in found]
        figure = run.figure("CPU of a drain, per event", total, "us", variant=name, x="all processes")
        spent_by[name] = figure.value
    run.figure("relay_cpu_vs_debezium", spent_by["cursor"] / spent_by["Debezium"], "x")
    run.figure("relay_cpu_vs_producer", spent_by["cursor"] / spent_by["bare producer"], "x")


def set_up(run: Run) -> Bench:
    """Servers of the run's own; brokers and Connect with the full JIT."""
    database, broker = run.own("postgres"), run.own("kafka", lab_jit="full")
    needs = {"kafka": broker.endpoint}
    connect = run.own("connect", needs, lab_jit="full")
    name = run.name
    conninfo = postgres.create_schema(database.endpoint, name)
    create(conninfo)
    kafka.create_topics(broker.endpoint, [f"{name}.orders"])
    shop = Shop(
        conninfo, broker.endpoint, f"{name}.orders", run.history_file("unused"), run.seed, 0, slot=f"{name}_log"
    )
    connector = Connector(connect.endpoint, database.endpoint, f"{name}_dbz", name, settings=FOR_RATE)
    run.parameters.update({"drained": DRAINED, "warm-up": WARM_UP, "partitions": 3})
    return Bench(run, shop, connector, {"Postgres": database, "Kafka": broker, "Connect": connect}, name)


def compare_latency(bench: Bench) -> None:
    """From the acknowledged commit to the consumer's hands, at two steady rates."""
    seconds = bench.run.pick(5, 12, 30)
    bench.connector.delete()
    for rate in (100, 1000):
        # A new one: that of the drains has all to read that was written for the others. Connect remembers names.
        latency_connector = replace(bench.connector, name=f"{bench.schema}_{rate}", settings=FOR_LATENCY)
        shop = replace(bench.shop, rate=float(rate), count=rate * (seconds + 1), seed=bench.run.seed + rate)
        p99 = {}
        for name, way in (("Debezium", None), ("log", WalRelay), ("cursor", CursorRelay)):
            with bench.run.step(f"{name}: latency at {rate} a second"):
                clear(bench)
                samples = measure(bench, shop, way or latency_connector)
            figure = bench.run.figure(
                "commit to consumer", samples, "ms", variant=name, x=float(rate), x_label="events/s"
            )
            p99[name] = figure.p99 or 0.0
        bench.run.figure(f"p99_vs_debezium_{rate}", max(p99["log"], p99["cursor"]) / p99["Debezium"], "x")


def compare_waiting(bench: Bench) -> None:
    """The cursor beside a transaction of others that stays open: how late events are, and what an idle relay costs."""
    seconds = bench.run.pick(2, OPEN, OPEN)
    shop = replace(bench.shop, rate=100.0, count=int(100 * (seconds + 1)), seed=bench.run.seed + 7)
    p99, cpu = {}, {}
    for held, name in ((False, "nobody else"), (True, "a transaction that stays open")):
        clear(bench)
        with open_transaction(shop.conninfo) if held else contextlib.nullcontext():
            samples = measure(bench, shop, CursorRelay)
        p99[held] = bench.run.figure("commit to consumer, beside", samples, "ms", variant=name).p99 or 0.0
        spent = [idle_cpu(bench, bench.run.pick(1, 3, 5), held) for _ in range(bench.run.pick(1, 2, 5))]
        cpu[held] = bench.run.figure("CPU of an idle cursor, beside", spent, "ms/s", variant=name).value
    bench.run.figure("lag_under_long_transaction_ms", p99[True] - p99[False], "ms")
    bench.run.figure("idle_cpu_under_long_transaction", cpu[True] / cpu[False], "x")


def measure(bench: Bench, shop: Shop, way: RelayClass | Connector) -> list[float]:
    with contextlib.ExitStack() as things:
        if isinstance(way, Connector):
            things.enter_context(way.running())
        else:
            if way is WalRelay:
                wal.set_up(shop.conninfo, shop.slot, bench.schema)
                things.callback(wal.tear_down, shop.conninfo, shop.slot)
            worker = bench.run.worker("relay", relay, shop, way, interval=INTERVAL, recorded=False)
            things.enter_context(worker)
        paced(bench, replace(shop, count=400, rate=200.0, seed=shop.seed + 1, prefix="warm"))
        return paced(bench, shop)


def paced(bench: Bench, shop: Shop) -> list[float]:
    """Milliseconds from commit to consumer. The first second's events only wake the consumer's fetches up."""
    consumer = bench.run.worker("consumer", consume_clocked, shop)
    consumer.ready()
    went: dict[str, int] = bench.run.worker("writer", write_paced, shop).result(120)
    came: dict[str, int] = consumer.result()
    return [(came[ident] - at) / 1e6 for ident, at in went.items()][int(shop.rate) :]


def count_anomalies(bench: Bench) -> None:
    """What comes twice is of the window that was open at the kill, and of what was read since the last note."""
    counts = take_schedules(bench, SCHEDULES)
    for name in ("lost", "reordered", "doubled", "outside"):
        total = sum(getattr(one, name) for one in counts)
        bench.run.figure(name if name != "outside" else "doubled outside of the window", total, "events")


def compare_transactions(bench: Bench) -> None:
    """Begin, insert, commit in one round trip; with and without the outbox row, in turn, so that drift hits both."""
    clear(bench)
    count = bench.run.pick(500, 2000, 5000)
    shop = replace(bench.shop, count=2 * count)
    samples: dict[str, list[float]] = {"row": [], "row and event": []}
    with postgres.connect(shop.conninfo) as connection:
        for number, event in enumerate(shop.events()):
            variant = "row and event" if number % 2 else "row"
            began = time.perf_counter()
            if number % 2:
                place_pipelined(connection, event, shop.topic)
            else:
                place_row_alone(connection, event)
            samples[variant].append((time.perf_counter() - began) * 1000)
    p50 = {name: bench.run.figure("transaction", found, "ms", variant=name).value for name, found in samples.items()}
    bench.run.figure("txn_p50_overhead", p50["row and event"] / p50["row"] - 1, "fraction")


def watch_relay(bench: Bench) -> None:
    """Growth from a tenth of the way to the end."""
    growth = []
    relays: dict[str, RelayClass] = {"cursor": CursorRelay, "log": WalRelay}
    for name in bench.run.pick(["cursor"], ["cursor"], ["cursor", "log"]):
        way = relays[name]
        clear(bench)
        if way is WalRelay:
            wal.set_up(bench.shop.conninfo, bench.shop.slot, bench.schema)
        write_rows(bench.shop, LONG, 10_000)
        growth.append(bench.run.figure("memory growth in a long drain", grow(bench, way), "MB", variant=name).value)
        if way is WalRelay:
            wal.tear_down(bench.shop.conninfo, bench.shop.slot)
    bench.run.figure("rss_growth_mb", max(growth), "MB")


def grow(bench: Bench, way: RelayClass) -> float:
    samples: list[float] = []
    stop = threading.Event()
    with (
        consuming(bench, LONG) as finish,
        bench.run.worker("relay", relay, bench.shop, way, interval=0.01, recorded=False) as relaying,
    ):
        watching = threading.Thread(target=watch_memory, args=[relaying.identity.pid, stop, samples])
        watching.start()
        finish()
        stop.set()
        watching.join()
    return max(samples[len(samples) // 10 :]) - samples[len(samples) // 10]


if __name__ == "__main__":
    experiment.main()
