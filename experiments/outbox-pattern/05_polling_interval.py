"""How often should a relay poll, and what does it cost to be woken by NOTIFY instead?

The polling publisher runs at several intervals: how long do events wait, and how many statements does an idle outbox
get? Then NOTIFY wakes the relays, sent in the write transaction or after its commit: what does each cost all writers?

The two ways to notify differ in one call: `pg_notify` by a trigger, within the transaction that writes (TRIGGER,
wrong/notifying.py), or `ring` after its commit (write_and_ring, service.py; RING, relay/notified.py).
"""

from collections.abc import Sequence
from dataclasses import replace

from outbox.relay.notified import PATIENCE, NotifiedPublisher, ring
from outbox.relay.polling import PollingPublisher
from outbox.service import write_and_ring
from outbox.stage import rings
from outbox.stage.rings import RATE, Seen
from outbox.wrong.notifying import ring_in_transaction

from shared.about import About
from shared.checkers import check
from shared.experiment import Experiment, Run, Scale

TUNING, POLL = "I.5/polling-publisher/polling-interval-tuning", "I.5/polling-publisher/poll-outbox-table"
OVERHEAD = "I.5/change-data-capture/no-polling-overhead"
experiment = Experiment(
    title="Polling interval",
    servers=("postgres", "kafka"),
    topics=(TUNING, POLL, OVERHEAD),
)
SESSIONS = 16  # writers at once


@experiment.run
def main(run: Run) -> None:
    count, idle = run.pick(smoke=40, demo=150, full=400), run.pick(smoke=0.5, demo=1.0, full=2.0)
    intervals = run.pick((5, 50, 500), (5, 20, 50, 100, 200, 500), (5, 20, 50, 100, 200, 500))
    run.parameters.update({"events per case": count, "rate per s": RATE, "idle s": idle, "sessions": SESSIONS})
    polling, within = run.about("polling publisher"), run.about("NOTIFY in the transaction")
    after = run.about("NOTIFY after the commit")
    polled = {}
    for ms in intervals:
        with run.step(f"poll every {ms} ms"):
            polled[ms] = rings.observe(polling, f"poll_{ms}", count, idle, PollingPublisher, ms / 1000)
    with run.step(f"woken: {within.variant}"):
        called = rings.observe(within, "within", count, idle, NotifiedPublisher, PATIENCE, prepare=ring_in_transaction)
    with run.step(f"woken: {after.variant}"):
        rung = rings.observe(after, "after", count, idle, NotifiedPublisher, PATIENCE, write=write_and_ring)
    with run.step(f"{SESSIONS} writers, with and without NOTIFY"):
        rates = write_side_by_side(run)
    if run.scale is not Scale.SMOKE:
        claim_pace(run.about(polling.variant, wrong_way=True), polled)
    claim_intervals(polling, polled)
    claim_rung(after, polled, [called, rung])
    claim_writers(run.about("no NOTIFY"), run.about(within.variant, wrong_way=True), after, rates)


def write_side_by_side(run: Run) -> list[list[float]]:
    """Transactions per second of many writers: quiet, ringing within, and after. The three take turns."""
    seconds, rounds = run.pick(smoke=0.2, demo=0.8, full=1.5), run.pick(smoke=2, demo=3, full=5)
    quiet, within, after = (rings.open_writers(run, name, SESSIONS, seconds) for name in ("quiet", "within", "after"))
    ring_in_transaction(within.conninfo)
    writers = [quiet, within, replace(after, ring=ring)]
    return list(run.worker("writers", rings.compare_writers, writers, rounds).result(180))


def claim_intervals(polling: About, polled: dict[int, Seen]) -> None:
    anomalies = sum(len(found) for seen in polled.values() for found in check(seen.history).values())
    events = sum(len(seen.history.committed) for seen in polled.values())
    polling.claim(
        "the interval is a matter of time only: at every one of them each event comes once and in order",
        anomalies == 0 < events,
        topics=[POLL],
        fact=f"{events:,} events at {len(polled)} intervals, {anomalies} anomalies",
    )


def claim_pace(polling: About, polled: dict[int, Seen]) -> None:
    """What takes time to be seen, on a machine that has it: not at scale smoke."""
    short, long = min(polled), max(polled)
    polling.claim(
        f"polled every {long} ms, an event waits for the poll and not for anything else",
        polled[long].p50 > 0.2 * long and polled[long].p50 > 2 * polled[short].p50,
        topics=[TUNING],
        fact=f"p50 {polled[long].p50:.0f} ms against {polled[short].p50:.1f} ms every {short} ms",
    )
    polling.claim(
        f"polled every {short} ms, an outbox with no news is asked all the time",
        polled[short].idle > 5 * polled[long].idle,
        topics=[TUNING, OVERHEAD],
        fact=f"{polled[short].idle:.0f} scans/s for nothing, against {polled[long].idle:.0f} every {long} ms",
    )


def claim_rung(after: About, polled: dict[int, Seen], rung: Sequence[Seen]) -> None:
    """Of both ways to ring; the fact is that of the last."""
    long, seen = max(polled), rung[-1]
    text = f"woken by NOTIFY, a relay asks an idle outbox no more than one that polls every {long} ms"
    # Looks as it begins, one of which says that it is there, and then those that the intervals allow.
    holds = all(one.asked <= 2 + one.seconds * 1000 / long for one in rung)
    if after.run.scale is not Scale.SMOKE:
        text += ", and is not late"
        holds = all(one.idle <= polled[long].idle + 1 and one.p50 < polled[long].p50 / 2 for one in rung)
    after.claim(text, holds, topics=[OVERHEAD, TUNING], fact=f"{seen.idle:.0f} scans/s, p50 {seen.p50:.1f} ms")
    anomalies = sum(len(found) for one in rung for found in check(one.history).values())
    after.claim(
        "woken, it still polls the same table: nothing is lost, nothing comes twice or out of order",
        anomalies == 0 and all(one.history.committed for one in rung),
        topics=[POLL],
        fact=f"{sum(len(one.history.committed) for one in rung):,} events, {anomalies} anomalies",
    )


def claim_writers(quiet: About, within: About, after: About, rates: list[list[float]]) -> None:
    ways = zip((quiet, within, after), rates, strict=True)
    alone, ringing, rung = (about.figure("rows with events", found, "tx/s").value for about, found in ways)
    if quiet.run.scale is Scale.SMOKE:
        return
    within.claim(
        "NOTIFY in the write transaction holds one lock over every commit's flush: all writers pay for it",
        ringing / alone < 0.9,
        topics=[TUNING],
        fact=f"{ringing:,.0f} tx/s against {alone:,.0f} without: {ringing / alone:.2f}x",
    )
    after.claim(
        "NOTIFY after the commit, without waiting for the disk: the relay is woken, and writers pay less",
        rung > ringing,
        topics=[TUNING],
        fact=f"{rung:,.0f} tx/s: {rung / alone:.2f}x",
    )


if __name__ == "__main__":
    experiment.main()
