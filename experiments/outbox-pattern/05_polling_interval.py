"""How often should a relay poll, and what does it cost to be woken by NOTIFY instead?

The polling publisher at several intervals: what events wait, and what an idle outbox is asked. Then relays woken by
NOTIFY, rung for in the write transaction and after its commit; and what each way of ringing costs all writers.

The two ways to ring differ in one call: `pg_notify` by a trigger, within the transaction that writes (TRIGGER,
wrong/notifying.py), or `ring` after its commit (write_and_ring, stage/notifying.py; RING, relay/notified.py).
"""

import statistics
from dataclasses import dataclass

from outbox.relay.notified import PATIENCE
from outbox.stage import measuring, notifying
from outbox.stage.notifying import AFTER_COMMIT, IN_TRANSACTION, QUIET
from outbox.stage.processes import announced
from outbox.stage.shops import open_shop, warm_up, watched
from outbox.wrong.notifying import ring_in_transaction

from shared.checkers import check
from shared.experiment import Experiment, Run, Scale
from shared.history import History

experiment = Experiment(
    title="Polling interval",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/polling-publisher/polling-interval-tuning",
        "I.5/polling-publisher/poll-outbox-table",
        "I.5/change-data-capture/no-polling-overhead",
    ),
)
POLLING = "polling publisher"
RATE = 100.0  # events per second
WARM = 4  # events before those that are measured
SESSIONS = 16  # writers at once


@dataclass(frozen=True)
class Seen:
    """What one relay did: scans of an idle outbox, and for how long (s); latency (ms) and history of a loaded one."""

    asked: int
    seconds: float
    p50: float
    history: History

    @property
    def idle(self) -> float:
        """Scans per second after the first one, with which the time begins."""
        return (self.asked - 1) / self.seconds


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=40, demo=150, full=400)
    idle = run.pick(smoke=0.5, demo=1.0, full=2.0)
    intervals = run.pick((5, 50, 500), (5, 20, 50, 100, 200, 500), (5, 20, 50, 100, 200, 500))
    run.parameters.update({"events per case": count, "rate per s": RATE, "idle s": idle, "sessions": SESSIONS})
    polled = {}
    for interval in intervals:
        with run.step(f"poll every {interval} ms"):
            polled[interval] = observe(run, POLLING, count, idle, interval)
    rung = {}
    for variant in (IN_TRANSACTION, AFTER_COMMIT):
        with run.step(f"woken: {variant}"):
            rung[variant] = observe(run, variant, count, idle)
    with run.step(f"{SESSIONS} writers, with and without NOTIFY"):
        rates = write_side_by_side(run)
    claim_intervals(run, polled)
    claim_rung(run, polled, rung)
    if run.scale is not Scale.SMOKE:
        claim_writers(run, rates)


def observe(run: Run, variant: str, count: int, idle: float, interval: int = 0) -> Seen:
    """One relay: first on an idle outbox, then on one that gets events at a steady rate."""
    name = f"poll_{interval}" if interval else variant.replace(" ", "_").lower()
    shop = open_shop(run, name, count, RATE)
    if variant == IN_TRANSACTION:
        ring_in_transaction(shop.conninfo)
    at_idle, at_load = run.folder / f"{name}.idle", run.folder / f"{name}.loaded"
    asked, seconds = measuring.idle_scans(
        shop.conninfo, at_idle, idle, lambda: notifying.relaying(run, shop, interval, at_idle)
    )
    before = measuring.scans(shop.conninfo)
    with watched(run, shop) as tap:
        with notifying.relaying(run, shop, interval, at_load):
            session = announced(at_load)
            warm_up(shop, tap, WARM)
            notifying.writing(run, shop, variant).wait()
            tap.wait_for(WARM + count)
        tap.catch_up()
    history = run.about(variant).judge(name)
    p50 = note(run, "commit to consumer", measuring.waits(history, shop.prefix), "ms", variant, interval)
    seen = Seen(asked, seconds, p50, history)
    note(run, "questions to an idle outbox", seen.idle, "scans/s", variant, interval)
    measuring.await_counts(shop.conninfo, session)
    loaded = (measuring.scans(shop.conninfo) - before) / (WARM + count)
    note(run, "questions to a loaded outbox", loaded, "scans per event", variant, interval)
    return seen


def note(run: Run, name: str, value: float | list[float], unit: str, variant: str, interval: int) -> float:
    """A figure over the interval; of a relay that is woken, over its patience."""
    x = float(interval) if interval else PATIENCE * 1000
    return run.about(variant).figure(name, value, unit, x=x, x_label="interval, ms").value


def write_side_by_side(run: Run) -> dict[str, list[float]]:
    """Transactions per second of many writers; the three ways take turns."""
    seconds, rounds = run.pick(smoke=0.2, demo=0.8, full=1.5), run.pick(smoke=2, demo=3, full=5)
    rates = notifying.side_by_side(run, SESSIONS, seconds, rounds)
    for ringing, found in rates.items():
        run.about(ringing, wrong_way=ringing == IN_TRANSACTION).figure("rows with events", found, "tx/s")
    return rates


def claim_intervals(run: Run, polled: dict[int, Seen]) -> None:
    if run.scale is not Scale.SMOKE:
        claim_pace(run, polled)
    anomalies = sum(len(found) for seen in polled.values() for found in check(seen.history).values())
    events = sum(len(seen.history.committed) for seen in polled.values())
    run.about(POLLING).claim(
        "the interval is a matter of time only: at every one of them each event comes once and in order",
        anomalies == 0 < events,
        topics=["I.5/polling-publisher/poll-outbox-table"],
        fact=f"{events:,} events at {len(polled)} intervals, {anomalies} anomalies",
    )


def claim_pace(run: Run, polled: dict[int, Seen]) -> None:
    """What takes time to be seen, on a machine that has it: not at scale smoke."""
    short, long = min(polled), max(polled)
    run.about(POLLING, wrong_way=True).claim(
        f"polled every {long} ms, an event waits for the poll and not for anything else",
        polled[long].p50 > 0.2 * long and polled[long].p50 > 2 * polled[short].p50,
        topics=["I.5/polling-publisher/polling-interval-tuning"],
        fact=f"p50 {polled[long].p50:.0f} ms against {polled[short].p50:.1f} ms every {short} ms",
    )
    run.about(POLLING, wrong_way=True).claim(
        f"polled every {short} ms, an outbox with no news is asked all the time",
        polled[short].idle > 5 * polled[long].idle,
        topics=["I.5/polling-publisher/polling-interval-tuning", "I.5/change-data-capture/no-polling-overhead"],
        fact=f"{polled[short].idle:.0f} scans/s for nothing, against {polled[long].idle:.0f} every {long} ms",
    )


def claim_rung(run: Run, polled: dict[int, Seen], rung: dict[str, Seen]) -> None:
    long, seen = max(polled), rung[AFTER_COMMIT]
    text = f"woken by NOTIFY, a relay asks an idle outbox no more than one that polls every {long} ms"
    # Looks as it begins, one of which says that it is there, and then those that the intervals allow.
    holds = all(one.asked <= 2 + one.seconds * 1000 / long for one in rung.values())
    if run.scale is not Scale.SMOKE:
        text += ", and is not late"
        holds = all(one.idle <= polled[long].idle + 1 and one.p50 < polled[long].p50 / 2 for one in rung.values())
    run.about(AFTER_COMMIT).claim(
        text,
        holds,
        topics=["I.5/change-data-capture/no-polling-overhead", "I.5/polling-publisher/polling-interval-tuning"],
        fact=f"{seen.idle:.0f} scans/s, p50 {seen.p50:.1f} ms",
    )
    anomalies = sum(len(found) for one in rung.values() for found in check(one.history).values())
    run.about(AFTER_COMMIT).claim(
        "woken, it still polls the same table: nothing is lost, nothing comes twice or out of order",
        anomalies == 0 and all(one.history.committed for one in rung.values()),
        topics=["I.5/polling-publisher/poll-outbox-table"],
        fact=f"{sum(len(one.history.committed) for one in rung.values()):,} events, {anomalies} anomalies",
    )


def claim_writers(run: Run, rates: dict[str, list[float]]) -> None:
    median = {ringing: statistics.median(found) for ringing, found in rates.items()}
    share = {ringing: rate / median[QUIET] for ringing, rate in median.items()}
    run.about(IN_TRANSACTION, wrong_way=True).claim(
        "NOTIFY in the write transaction holds one lock over every commit's flush: all writers pay for it",
        share[IN_TRANSACTION] < 0.9,
        topics=["I.5/polling-publisher/polling-interval-tuning"],
        fact=f"{median[IN_TRANSACTION]:,.0f} tx/s against {median[QUIET]:,.0f} without: {share[IN_TRANSACTION]:.2f}x",
    )
    run.about(AFTER_COMMIT).claim(
        "rung for after the commit, and without waiting for the disk, the relay is woken and writers pay less",
        median[AFTER_COMMIT] > median[IN_TRANSACTION],
        topics=["I.5/polling-publisher/polling-interval-tuning"],
        fact=f"{median[AFTER_COMMIT]:,.0f} tx/s: {share[AFTER_COMMIT]:.2f}x",
    )


if __name__ == "__main__":
    experiment.main()
