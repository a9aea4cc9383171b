"""Six relays on one outbox: what does each rung of the ladder buy, and what does it ask of the database?

From the tutorial's (a row, a publication, a delete, a commit) to the log: latency at a steady rate, the drain of a
backlog, what is lost, doubled or out of order, and per event: CPU, log written, transactions, looks at the table.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import psycopg
from outbox.relay import wal
from outbox.relay.debezium import Connector
from outbox.stage import measuring
from outbox.stage.measuring import Drain, await_counts, consume_drain, cpu_seconds, scans
from outbox.stage.processes import Shop, announced, relay, serve, write_backlog
from outbox.table import create

from shared import postgres
from shared.checkers import Kind, check, lost
from shared.experiment import Experiment, Run, Scale
from shared.history import History
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="The relay ladder",
    servers=("postgres", "kafka", "connect"),
    topics=(
        "I.5/outbox-implementation/publisher-process",
        "I.5/outbox-pattern/separate-process-publishes",
        "I.5/polling-publisher/publish-messages",
        "I.5/change-data-capture/lower-latency",
        "I.5/change-data-capture/no-polling-overhead",
    ),
)
ROW, BATCHES, MARK, CURSOR, LOG, DEBEZIUM = (
    *("row by row", "batch delete", "publish, then mark"),
    *("cursor", "log", "Debezium"),
)
LADDER = ROW, BATCHES, MARK, CURSOR, LOG, DEBEZIUM
POLL = 0.1  # seconds between polls, of all relays that poll
BATCH = 500
RATE = 100.0  # events per second, for latency
WARM = 20  # events before those that are measured
LOOKS = "looks at the table"
KINDS = Kind.LOST, Kind.DUPLICATE_DELIVERY, Kind.REORDERED


@dataclass
class Rung:
    """One relay on its own outbox, and what it showed."""

    kind: str
    shop: Shop
    backlog: int
    connector: Connector | None = None
    wait: float = 0.0  # median ms from commit to consumer
    rate: float = 0.0  # events per second of a drain
    before: dict[str, float] = field(default_factory=dict)  # Postgres' counts before the drain
    cost: dict[str, float] = field(default_factory=dict)  # by the same counts, per event
    history: History = field(default_factory=lambda: History([]))


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=60, demo=200, full=1_000)
    backlog = run.pick(smoke=5_000, demo=20_000, full=100_000)
    by_row = run.pick(smoke=200, demo=1_000, full=5_000)
    run.parameters.update({"events at a steady rate": count, "rate per s": RATE, "poll interval ms": POLL * 1000})
    run.parameters.update({"backlog": backlog, f"backlog, {ROW}": by_row, "batch": BATCH})
    rungs = {}
    for kind in LADDER:
        with run.step(kind), ExitStack() as things:
            rung = rungs[kind] = Rung(kind, open_shop(run, kind, count), by_row if kind == ROW else backlog)
            prepare(run, rung, things)
            with relaying(run, rung) as relay_at_work:
                pace(run, rung)
                drain(run, rung, relay_at_work)
            weigh(run, rung)
    claim_rates(run, rungs)
    claim_costs(run, rungs)
    claim_histories(run, rungs)


def open_shop(run: Run, kind: str, count: int) -> Shop:
    name = kind.replace(", ", "_").replace(" ", "_").lower()
    conninfo, broker, history = run.schema(f"_{name}"), run.endpoints["kafka"], run.history_file(name)
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute("alter table outbox_default set (autovacuum_enabled = off)")  # its log is no relay's
    return Shop(conninfo, broker, run.topic(name), history, run.seed, count, rate=RATE, slot=f"{run.name}_{name}")


def prepare(run: Run, rung: Rung, things: ExitStack) -> None:
    """The slot of those that read the log, gone at the end; it bears the name of the schema."""
    shop = rung.shop
    if rung.kind == LOG:
        wal.set_up(shop.conninfo, shop.slot, shop.slot)
        things.callback(wal.tear_down, shop.conninfo, shop.slot)
    if rung.kind == DEBEZIUM:
        connector = Connector(run.endpoints["connect"], run.endpoints["postgres"], shop.slot, shop.slot)
        rung.connector = things.enter_context(connector.running())


@dataclass(frozen=True)
class Relaying:
    """A relay at work: held for a while, let go again, and the CPU seconds it has used so far."""

    hold: Callable[[], None]
    go: Callable[[], None]
    cpu: Callable[[], float]


@contextlib.contextmanager
def relaying(run: Run, rung: Rung) -> Iterator[Relaying]:
    """The rung's relay. Python's is paused to be held, its session open; Debezium is stopped, and its start counts."""
    if rung.connector:
        pid = connect_pid(run)
        yield Relaying(rung.connector.stop, rung.connector.resume, lambda: cpu_seconds(pid) if pid else 0.0)
    else:
        ready = run.folder / f"{rung.shop.history.stem}.relaying"
        with run.worker("relay", relay, rung.shop, rung.kind, BATCH, POLL, None, "relay", False, ready) as worker:
            session = announced(ready)
            yield Relaying(worker.pause, worker.resume, lambda: cpu_seconds(worker.identity.pid))
        await_counts(rung.shop.conninfo, session)


def connect_pid(run: Run) -> int:
    """Connect's process; 0 where it is not ours to look at."""
    if not run.endpoints["connect"].ours:
        return 0
    processes = run.control("connect").record.processes
    return processes[0].pid if processes else 0


def pace(run: Run, rung: Rung) -> None:
    """Latency at a steady rate, after a few events that are not measured; the history is for the checkers."""
    shop, name = rung.shop, rung.shop.history.stem
    with Tap("consumer", shop.broker, [shop.topic], run.recorder(name, "experiment")) as tap:
        write_backlog(replace(shop, count=WARM, seed=shop.seed + 1, prefix="warm"))
        tap.wait_for(WARM)
        run.worker("service", serve, shop, "outbox").wait(120)
        tap.wait_for(WARM + shop.count)
        tap.catch_up()
    rung.history = run.judge(name, variant=rung.kind, wrong_way=rung.kind == ROW)
    first = {op.value: op.at for op in reversed(rung.history.delivered)}
    written = {value: op for value, op in rung.history.written.items() if not op.key.startswith("warm")}
    waits = [(first[value] - op.at) / 1e6 for value, op in written.items() if value in first]
    rung.wait = note(run, rung, f"commit to consumer at {RATE:.0f} a second", waits, "ms")


def drain(run: Run, rung: Rung, relaying: Relaying) -> None:
    """A backlog written while the relay is held; what it took, by the clock; `weigh` has the counts."""
    shop, count = rung.shop, rung.backlog
    ready, result = run.folder / f"{shop.history.stem}.ready", run.folder / f"{shop.history.stem}.drain"
    consumer = run.worker("consumer", consume_drain, shop, count, ready, result)
    until("the consumer to be ready", ready.exists)
    relaying.hold()
    measuring.write_backlog(shop, count, per_transaction=1000)
    rung.before, used, went = counts(shop), relaying.cpu(), time.time()
    relaying.go()
    consumer.wait(300)
    settled(rung)
    used = relaying.cpu() - used
    # From the moment it was let go to the last event consumed. Debezium's resume is not counted: from the first event.
    drained = Drain(*json.loads(result.read_text())[:2])
    if not rung.connector:
        drained = replace(drained, seconds=result.stat().st_mtime - went)
    rung.rate = note(run, rung, "drain", drained.rate, "events/s")
    if used:
        note(run, rung, "CPU of the relay per 1,000 events", used * 1000 / count * 1000, "ms")


def weigh(run: Run, rung: Rung) -> None:
    """What the drain cost the database. A session hands in its last counts when it ends, as the relay's now has."""
    after = counts(rung.shop)
    rung.cost = {name: (after[name] - rung.before[name]) / rung.backlog for name in after}
    for name, value in rung.cost.items():
        note(run, rung, f"{name} per event", value, "B" if name == "log written" else "")


def settled(rung: Rung) -> None:
    """The consumer has everything; the relay may still be noting it."""
    if rung.kind in (ROW, BATCHES, MARK):
        with postgres.connect(rung.shop.conninfo) as connection:
            query = "select count(*) = 0 from outbox where published_at is null"
            until("everything to be noted", lambda: (connection.execute(query).fetchone() or [False])[0])


def counts(shop: Shop) -> dict[str, float]:
    """Postgres' own counts: transactions and log are those of the whole server, on which nothing else should run."""
    query = """
    select xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8
    from pg_stat_database where datname = current_database()
    """
    with psycopg.connect(shop.conninfo) as connection:
        transactions, log = connection.execute(query).fetchone() or (0, 0.0)
    return {"transactions": transactions, LOOKS: scans(shop.conninfo), "log written": log}


def note(run: Run, rung: Rung, name: str, value: float | list[float], unit: str) -> float:
    return run.figure(name, value, unit, variant=rung.kind, wrong_way=rung.kind == ROW).value


def claim_rates(run: Run, rungs: dict[str, Rung]) -> None:
    row, cursor, mark, log = (rungs[kind] for kind in (ROW, CURSOR, MARK, LOG))
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        run.claim(
            "read from the log, an event waits for no poll: all arrive, and the table is not asked for them",
            all(rung.cost[LOOKS] == 0 and not lost(rung.history) for rung in (log, rungs[DEBEZIUM])),
            topics=["I.5/change-data-capture/lower-latency"],
            fact=f"looks at the table: log {log.cost[LOOKS]:.0f}, Debezium {rungs[DEBEZIUM].cost[LOOKS]:.0f}",
            variant=LOG,
        )
        return
    run.claim(
        "row by row, a commit and a round trip to the broker for every event: far slower than any other",
        all(5 * row.rate <= rung.rate for kind, rung in rungs.items() if kind in (BATCHES, MARK, CURSOR, LOG)),
        topics=["I.5/outbox-implementation/publisher-process", "I.5/polling-publisher/publish-messages"],
        fact=f"{row.rate:,.0f} events/s against {cursor.rate:,.0f} by the cursor: {cursor.rate / row.rate:,.0f}x",
        variant=ROW,
        wrong_way=True,
    )
    run.claim(
        f"read from the log, an event waits for no poll: sooner there than by a poll every {POLL * 1000:.0f} ms",
        log.wait < mark.wait and rungs[DEBEZIUM].wait < mark.wait,
        topics=["I.5/change-data-capture/lower-latency"],
        fact=f"p50 {log.wait:.1f} ms, Debezium {rungs[DEBEZIUM].wait:.1f} ms, polling {mark.wait:.1f} ms",
        variant=LOG,
    )


def claim_costs(run: Run, rungs: dict[str, Rung]) -> None:
    looks = {kind: rung.cost[LOOKS] for kind, rung in rungs.items()}
    log = {kind: rung.cost["log written"] for kind, rung in rungs.items()}
    run.claim(
        "row by row, the table is asked at least once for every event",
        looks[ROW] >= 1,
        topics=["I.5/polling-publisher/publish-messages"],
        fact=f"{looks[ROW]:.1f} looks per event, {rungs[ROW].cost['transactions']:.1f} transactions",
        variant=ROW,
        wrong_way=True,
    )
    run.claim(
        "the cursor asks once for a page, the log's relays not at all: under 0.1 looks at the table per event",
        looks[CURSOR] < 0.1 and looks[LOG] == looks[DEBEZIUM] == 0,
        topics=["I.5/outbox-implementation/publisher-process", "I.5/change-data-capture/no-polling-overhead"],
        fact=f"cursor {looks[CURSOR]:.4f}, log {looks[LOG]:.0f}, Debezium {looks[DEBEZIUM]:.0f}",
        variant=CURSOR,
    )
    run.claim(
        "noting every event, by delete or by mark, is written to the log; a cursor is one row for thousands",
        all(log[kind] > 3 * log[CURSOR] for kind in (ROW, BATCHES, MARK)),
        topics=["I.5/outbox-implementation/publisher-process"],
        fact=", ".join(f"{kind} {log[kind]:.0f} B" for kind in (BATCHES, MARK, CURSOR)),
        variant=CURSOR,
    )


def claim_histories(run: Run, rungs: dict[str, Rung]) -> None:
    wrong = {kind: sum(map(len, check(rung.history).values())) for kind, rung in rungs.items()}
    events = sum(len(rung.history.committed) for rung in rungs.values())
    for kind, rung in rungs.items():
        for anomaly in KINDS:
            note(run, rung, f"events {anomaly}", len(check(rung.history)[anomaly]), "events")
        wrong[kind] += len(rung.history.committed) != WARM + rung.shop.count
    run.claim(
        "one relay, and no kill: none of the six loses, doubles or reorders anything; they differ in cost",
        not any(wrong.values()),
        topics=["I.5/outbox-pattern/separate-process-publishes", "I.5/polling-publisher/publish-messages"],
        fact=f"{events:,} events through {len(rungs)} relays, {sum(wrong.values())} anomalies",
    )


if __name__ == "__main__":
    experiment.main()
