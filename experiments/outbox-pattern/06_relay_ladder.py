"""Six relays on one outbox: what does each rung of the ladder buy, and what does it ask of the database?

From the tutorial's (a row, a publication, a delete, a commit) to the log: latency at a steady rate, the drain of a
backlog, what is lost, doubled or out of order, and per event: CPU, log written, transactions, looks at the table.

The rungs differ in how a relay takes events and how it notes them: `batch`, TAKE and DELETE (wrong/deleting.py), POLL
and MARK (relay/polling.py), CursorRelay._checkpoint (relay/cursor.py), and the slot (relay/wal.py, relay/debezium.py).
"""

from outbox.relay.cursor import CursorRelay
from outbox.relay.polling import PollingPublisher
from outbox.relay.wal import WalRelay
from outbox.stage import ladder
from outbox.stage.ladder import LOOKS, Rung
from outbox.stage.measuring import waits
from outbox.stage.processes import RelayClass, serve
from outbox.stage.shops import warm_up, watched
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay

from shared.checkers import Kind, check, lost
from shared.experiment import Experiment, Run, Scale
from shared.run import About

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
LADDER: dict[str, RelayClass | None] = {
    ROW: SkipLockedRelay,
    BATCHES: BatchDeleteRelay,
    MARK: PollingPublisher,
    CURSOR: CursorRelay,
    LOG: WalRelay,
    DEBEZIUM: None,  # no class of ours: it runs in Kafka Connect
}
RATE = 100.0  # events per second, for latency
WARM = 20  # events before those that are measured
KINDS = Kind.LOST, Kind.DUPLICATE_DELIVERY, Kind.REORDERED


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=60, demo=200, full=1_000)
    backlog = run.pick(smoke=5_000, demo=20_000, full=100_000)
    by_row = run.pick(smoke=200, demo=1_000, full=5_000)
    run.parameters.update({"events at a steady rate": count, "rate per s": RATE})
    run.parameters.update({"poll interval ms": ladder.POLL * 1000})
    run.parameters.update({"backlog": backlog, f"backlog, {ROW}": by_row, "batch": ladder.BATCH})
    rungs = {}
    for kind, way in LADDER.items():
        many = by_row if kind == ROW else backlog
        with run.step(kind), ladder.opened(run, kind, way, count, RATE, many) as rung:
            with ladder.relaying(run, rung) as at_work:
                pace(run, rung)
                drain(run, rung, at_work)
            weigh(run, rung)
            rungs[kind] = rung
    claim_rates(run, rungs)
    claim_costs(run, rungs)
    claim_histories(run, rungs)


def pace(run: Run, rung: Rung) -> None:
    """Latency at a steady rate, after a few events that are not measured; the history is for the checkers."""
    shop = rung.shop
    with watched(run, shop) as tap:
        warm_up(shop, tap, WARM)
        run.worker("service", serve, shop, "outbox").wait(120)
        tap.wait_for(WARM + shop.count)
        tap.catch_up()
    rung.history = about(run, rung.kind).judge(shop.history.stem)
    late = waits(rung.history, shop.prefix)
    rung.wait = note(run, rung, f"commit to consumer at {RATE:.0f} a second", late, "ms")


def drain(run: Run, rung: Rung, at_work: ladder.Relaying) -> None:
    """A backlog written while the relay is held; what it took, by the clock; `weigh` has the counts."""
    rate, used = ladder.drain(run, rung, at_work)
    rung.rate = note(run, rung, "drain", rate, "events/s")
    if used:
        note(run, rung, "CPU of the relay per 1,000 events", used * 1000 / rung.backlog * 1000, "ms")


def weigh(run: Run, rung: Rung) -> None:
    """What the drain cost the database. A session hands in its last counts when it ends, as the relay's now has."""
    rung.cost = ladder.cost(rung)
    for name, value in rung.cost.items():
        note(run, rung, f"{name} per event", value, "B" if name == ladder.LOG_WRITTEN else "")


def about(run: Run, kind: str) -> About:
    return run.about(kind, wrong_way=kind == ROW)


def note(run: Run, rung: Rung, name: str, value: float | list[float], unit: str) -> float:
    return about(run, rung.kind).figure(name, value, unit).value


def claim_rates(run: Run, rungs: dict[str, Rung]) -> None:
    row, cursor, mark, log = (rungs[kind] for kind in (ROW, CURSOR, MARK, LOG))
    if run.scale is Scale.SMOKE:  # too few, and too short, to compare times
        about(run, LOG).claim(
            "read from the log, an event waits for no poll: all arrive, and the table is not asked for them",
            all(rung.cost[LOOKS] == 0 and not lost(rung.history) for rung in (log, rungs[DEBEZIUM])),
            topics=["I.5/change-data-capture/lower-latency"],
            fact=f"looks at the table: log {log.cost[LOOKS]:.0f}, Debezium {rungs[DEBEZIUM].cost[LOOKS]:.0f}",
        )
        return
    about(run, ROW).claim(
        "row by row, a commit and a round trip to the broker for every event: far slower than any other",
        all(5 * row.rate <= rung.rate for kind, rung in rungs.items() if kind in (BATCHES, MARK, CURSOR, LOG)),
        topics=["I.5/outbox-implementation/publisher-process", "I.5/polling-publisher/publish-messages"],
        fact=f"{row.rate:,.0f} events/s against {cursor.rate:,.0f} by the cursor: {cursor.rate / row.rate:,.0f}x",
    )
    about(run, LOG).claim(
        f"read from the log, an event waits for no poll: sooner there than by a poll every {ladder.POLL * 1000:.0f} ms",
        log.wait < mark.wait and rungs[DEBEZIUM].wait < mark.wait,
        topics=["I.5/change-data-capture/lower-latency"],
        fact=f"p50 {log.wait:.1f} ms, Debezium {rungs[DEBEZIUM].wait:.1f} ms, polling {mark.wait:.1f} ms",
    )


def claim_costs(run: Run, rungs: dict[str, Rung]) -> None:
    looks = {kind: rung.cost[LOOKS] for kind, rung in rungs.items()}
    log = {kind: rung.cost[ladder.LOG_WRITTEN] for kind, rung in rungs.items()}
    about(run, ROW).claim(
        "row by row, the table is asked at least once for every event",
        looks[ROW] >= 1,
        topics=["I.5/polling-publisher/publish-messages"],
        fact=f"{looks[ROW]:.1f} looks per event, {rungs[ROW].cost[ladder.TRANSACTIONS]:.1f} transactions",
    )
    about(run, CURSOR).claim(
        "the cursor asks once for a page, the log's relays not at all: under 0.1 looks at the table per event",
        looks[CURSOR] < 0.1 and looks[LOG] == looks[DEBEZIUM] == 0,
        topics=["I.5/outbox-implementation/publisher-process", "I.5/change-data-capture/no-polling-overhead"],
        fact=f"cursor {looks[CURSOR]:.4f}, log {looks[LOG]:.0f}, Debezium {looks[DEBEZIUM]:.0f}",
    )
    about(run, CURSOR).claim(
        "noting every event, by delete or by mark, is written to the log; a cursor is one row for thousands",
        all(log[kind] > 3 * log[CURSOR] for kind in (ROW, BATCHES, MARK)),
        topics=["I.5/outbox-implementation/publisher-process"],
        fact=", ".join(f"{kind} {log[kind]:.0f} B" for kind in (BATCHES, MARK, CURSOR)),
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
