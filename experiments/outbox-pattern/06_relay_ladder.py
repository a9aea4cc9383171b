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
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay

from shared.checkers import Kind, check, lost
from shared.experiment import Experiment, Run, Scale

PUBLISHER, PUBLISH = "I.5/outbox-implementation/publisher-process", "I.5/polling-publisher/publish-messages"
APART, LATENCY = "I.5/outbox-pattern/separate-process-publishes", "I.5/change-data-capture/lower-latency"
OVERHEAD = "I.5/change-data-capture/no-polling-overhead"
experiment = Experiment(
    title="The relay ladder",
    servers=("postgres", "kafka", "connect"),
    topics=(PUBLISHER, APART, PUBLISH, LATENCY, OVERHEAD),
)
RATE = 100.0  # events per second, for latency
KINDS = Kind.LOST, Kind.DUPLICATE_DELIVERY, Kind.REORDERED


@experiment.run
def main(run: Run) -> None:
    count, backlog = run.pick(smoke=60, demo=200, full=1_000), run.pick(smoke=5_000, demo=20_000, full=100_000)
    by_row = run.pick(smoke=200, demo=1_000, full=5_000)
    run.parameters.update({"events at a steady rate": count, "rate per s": RATE})
    run.parameters.update({"poll interval ms": ladder.POLL * 1000})
    run.parameters.update({"backlog": backlog, "backlog, row by row": by_row, "batch": ladder.BATCH})
    rungs = []
    for about, way, many in (
        (run.about("row by row", wrong_way=True), SkipLockedRelay, by_row),
        (run.about("batch delete"), BatchDeleteRelay, backlog),
        (run.about("publish, then mark"), PollingPublisher, backlog),
        (run.about("cursor"), CursorRelay, backlog),
        (run.about("log"), WalRelay, backlog),
        (run.about("Debezium"), None, backlog),  # no class of ours: it runs in Kafka Connect
    ):
        with run.step(about.variant), ladder.opened(about, way, count, RATE, many) as rung:
            with ladder.started(rung) as relaying:
                ladder.pace(rung)
                ladder.drain(rung, relaying)
            ladder.weigh(rung)
            rungs.append(rung)
    if run.scale is Scale.SMOKE:
        claim_no_looks(*rungs[-2:])
    else:
        claim_rates(*rungs)
    claim_costs(*rungs)
    claim_histories(run, rungs)


def claim_no_looks(log: Rung, debezium: Rung) -> None:
    """At scale smoke there are too few, and it is too short, to compare times."""
    log.about.claim(
        "read from the log, an event waits for no poll: all arrive, and the table is not asked for them",
        all(rung.cost[LOOKS] == 0 and not lost(rung.history) for rung in (log, debezium)),
        topics=[LATENCY],
        fact=f"looks at the table: log {log.cost[LOOKS]:.0f}, Debezium {debezium.cost[LOOKS]:.0f}",
    )


def claim_rates(row: Rung, batches: Rung, mark: Rung, cursor: Rung, log: Rung, debezium: Rung) -> None:
    row.about.claim(
        "row by row, a commit and a round trip to the broker for every event: far slower than any other",
        all(5 * row.rate <= rung.rate for rung in (batches, mark, cursor, log)),
        topics=[PUBLISHER, PUBLISH],
        fact=f"{row.rate:,.0f} events/s against {cursor.rate:,.0f} by the cursor: {cursor.rate / row.rate:,.0f}x",
    )
    log.about.claim(
        f"read from the log, an event waits for no poll: sooner there than by a poll every {ladder.POLL * 1000:.0f} ms",
        log.wait < mark.wait and debezium.wait < mark.wait,
        topics=[LATENCY],
        fact=f"p50 {log.wait:.1f} ms, Debezium {debezium.wait:.1f} ms, polling {mark.wait:.1f} ms",
    )


def claim_costs(row: Rung, batches: Rung, mark: Rung, cursor: Rung, log: Rung, debezium: Rung) -> None:
    row.about.claim(
        "row by row, the table is asked at least once for every event",
        row.cost[LOOKS] >= 1,
        topics=[PUBLISH],
        fact=f"{row.cost[LOOKS]:.1f} looks per event, {row.cost[ladder.TRANSACTIONS]:.1f} transactions",
    )
    looks, no_looks, debezium_looks = (rung.cost[LOOKS] for rung in (cursor, log, debezium))
    cursor.about.claim(
        "the cursor asks once for a page, the log's relays not at all: under 0.1 looks at the table per event",
        looks < 0.1 and no_looks == debezium_looks == 0,
        topics=[PUBLISHER, OVERHEAD],
        fact=f"cursor {looks:.4f}, log {no_looks:.0f}, Debezium {debezium_looks:.0f}",
    )
    noted = {rung.about.variant: rung.cost[ladder.LOG_WRITTEN] for rung in (row, batches, mark, cursor)}
    cursor.about.claim(
        "noting every event, by delete or by mark, is written to the log; a cursor is one row for thousands",
        all(noted[rung.about.variant] > 3 * noted["cursor"] for rung in (row, batches, mark)),
        topics=[PUBLISHER],
        fact=", ".join(f"{variant} {size:.0f} B" for variant, size in list(noted.items())[1:]),
    )


def claim_histories(run: Run, rungs: list[Rung]) -> None:
    anomalies, whole = 0, True
    for rung in rungs:
        found = check(rung.history)
        for kind in KINDS:
            rung.about.figure(f"events {kind}", len(found[kind]), "events")
        anomalies += sum(map(len, found.values()))
        whole = whole and len(rung.history.committed) == ladder.WARM + rung.shop.count
    run.claim(
        "one relay, and no kill: none of the six loses, doubles or reorders anything; they differ in cost",
        whole and not anomalies,
        topics=[APART, PUBLISH],
        fact=f"{sum(len(rung.history.committed) for rung in rungs):,} events through {len(rungs)} relays, "
        f"{anomalies} anomalies",
    )


if __name__ == "__main__":
    experiment.main()
