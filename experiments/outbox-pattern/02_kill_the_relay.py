"""The relay is killed in every window between reading a batch and having it marked: what is lost, what is doubled?

Two polling publishers drain the same outbox under the same kills. One publishes and then marks; the other marks and
then publishes, which is what "delete the row, then send it" comes to.

The two ways differ in the order of two calls, `_publish` and `_mark`: PollingPublisher.step (relay/polling.py) and
MarkFirstPublisher.step (wrong/mark_first.py).
"""

from dataclasses import dataclass

from outbox.relay.polling import PollingPublisher
from outbox.stage import killing
from outbox.stage.processes import Shop, relay, settle, write_backlog
from outbox.stage.shops import open_shop, watched
from outbox.windows import RelayWindow
from outbox.wrong.mark_first import MarkFirstPublisher

from shared import checkers, kafka
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import History
from shared.run import About

experiment = Experiment(
    title="The outbox: kill the relay in every window",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/outbox-pattern/separate-process-publishes",
        "I.5/outbox-pattern/at-least-once-delivery",
        "I.5/outbox-implementation/outbox-table-schema",
        "I.5/outbox-implementation/publisher-process",
        "I.5/outbox-implementation/delivery-tracking",
        "I.5/polling-publisher/poll-outbox-table",
        "I.5/polling-publisher/publish-messages",
        "I.5/polling-publisher/mark-as-published",
        "I.5/failure-scenarios/publisher-crash",
    ),
)
RIGHT, WRONG = "publish, then mark", "mark, then publish"
RELAYS: dict[str, type[PollingPublisher]] = {WRONG: MarkFirstPublisher, RIGHT: PollingPublisher}
WRITERS = 4
PAUSE = 0.02  # seconds between polls
# The windows in which the broker has the batch and the database does not know it yet.
DOUBLING = RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=200, demo=1_000, full=10_000)
    batch = count // 10
    run.parameters.update({"events per case": count, "batch": batch, "writers": WRITERS})
    killed: dict[tuple[str, RelayWindow], Killed] = {}
    for kind in RELAYS:
        for window in RelayWindow:
            with run.step(f"{kind}: kill -9 {window}"):
                killed[kind, window] = kill_once(run, kind, window, count, batch)
    with run.step(f"{RIGHT}: no kill, {WRITERS} services writing"):
        quiet, quiet_shop, moved = concurrently(run, count // WRITERS, batch)
    right = about(run, RIGHT)
    with run.step("compare payloads, byte for byte"):
        claim_bytes(right, quiet_shop)
    note_figures(run, killed)
    claim_wrong(about(run, WRONG), killed, batch)
    claim_right(right, killed, batch)
    claim_tracking(right, killed)
    claim_quiet(right, quiet)
    with run.step("clean-up: days are dropped"):
        claim_clean_up(right, quiet_shop, quiet, moved)


def about(run: Run, kind: str) -> About:
    return run.about(kind, wrong_way=kind == WRONG)


@dataclass(frozen=True)
class Killed:
    """What one kill left: the history, and how far database and broker were when the relay died."""

    history: History
    marked: int  # events marked as published
    sent: int  # events that the broker had


def kill_once(run: Run, kind: str, window: RelayWindow, count: int, batch: int) -> Killed:
    """A backlog, a relay killed at its fourth batch, and another one that does the rest."""
    shop = open_shop(run, f"{kind} {window}".replace(",", "").replace(" ", "-"), count)
    write_backlog(shop)
    relaying = relay, shop, RELAYS[kind], batch, PAUSE
    with watched(run, shop) as tap:
        run.worker("relay", *relaying, Kill(window, nth=4)).wait()
        sent = len({message.value() for message in kafka.read_all(shop.broker, shop.topic)})
        marked = count - killing.waiting(shop)
        with run.worker("relay", *relaying):
            killing.wait_until_published(shop)
        tap.catch_up()
    settle(shop, tap.recorder)
    history = about(run, kind).judge(shop.history.stem, f"SIGKILL {window}")
    return Killed(history, marked, sent)


def concurrently(run: Run, count: int, batch: int) -> tuple[History, Shop, int]:
    """Several services write while the relay runs, and nothing is killed: a checker must find nothing here either.

    Nobody has made the day's partition: it is made in the midst, and rows move; also returns how many.
    """
    shop = open_shop(run, "no-kill", count)
    with watched(run, shop) as tap:
        services = killing.services(run, shop, WRITERS)
        relaying = run.worker("relay", relay, shop, RELAYS[RIGHT], batch, PAUSE)
        tap.wait_for(count)  # of WRITERS * count
        moved = killing.make_days_late(shop)
        for service in services:
            service.wait()
        killing.wait_until_published(shop)
        relaying.stop()
        tap.catch_up()
    return about(run, RIGHT).judge(shop.history.stem), shop, moved


def note_figures(run: Run, killed: dict[tuple[str, RelayWindow], Killed]) -> None:
    for (kind, window), left in killed.items():
        counts = {
            "events lost": checkers.lost(left.history),
            "events delivered twice": checkers.duplicate_delivery(left.history),
        }
        for name, found in counts.items():
            about(run, kind).figure(name, len(found), "events", x=window, x_label="killed")


def claim_wrong(way: About, killed: dict[tuple[str, RelayWindow], Killed], batch: int) -> None:
    history = killed[WRONG, RelayWindow.AFTER_COMMIT].history
    way.claim(
        "mark, then publish: killed in between, the whole batch is lost for good, and nothing shows it",
        len(checkers.lost(history)) == batch,
        topics=["I.5/failure-scenarios/publisher-crash", "I.5/polling-publisher/mark-as-published"],
        fact=f"{len(checkers.lost(history))} of {len(history.committed)} events lost, all marked as published",
    )


def claim_right(way: About, killed: dict[tuple[str, RelayWindow], Killed], batch: int) -> None:
    histories = {window: killed[RIGHT, window].history for window in RelayWindow}
    missing = sum(
        len(checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history))
        for history in histories.values()
    )
    way.claim(
        "publish, then mark: killed in any window, nothing is lost",
        missing == 0 and all(len(history.committed) > 3 * batch for history in histories.values()),
        topics=["I.5/failure-scenarios/publisher-crash", "I.5/outbox-pattern/separate-process-publishes"],
        fact=f"{missing} lost in {len(histories)} windows",
    )
    doubled = {window: len(checkers.duplicate_delivery(history)) for window, history in histories.items()}
    way.claim(
        "publish, then mark: what was published and not yet marked comes twice, nothing else does",
        all(count == (batch if window in DOUBLING else 0) for window, count in doubled.items()),
        topics=["I.5/outbox-pattern/at-least-once-delivery", "I.5/polling-publisher/publish-messages"],
        fact=", ".join(f"{window}: {count}" for window, count in doubled.items()),
    )


def claim_tracking(way: About, killed: dict[tuple[str, RelayWindow], Killed]) -> None:
    early = {
        kind: max(left.marked - left.sent for (k, _), left in killed.items() if k == kind) for kind in (WRONG, RIGHT)
    }
    way.claim(
        "publish, then mark: at no kill is an event marked that the broker does not have",
        early[RIGHT] <= 0 < early[WRONG],
        topics=["I.5/outbox-implementation/delivery-tracking", "I.5/polling-publisher/mark-as-published"],
        fact=f"marked too early: {max(early[RIGHT], 0)}; by the wrong way: {early[WRONG]}",
    )


def claim_bytes(way: About, shop: Shop) -> None:
    stored, published = killing.stored(shop), killing.published(shop)
    way.claim(
        "the table holds all that consumers need: id, key, type, and the payload to the byte",
        stored == published and len(stored) > 0,
        topics=["I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{len(stored):,} payloads equal",
    )


def claim_quiet(way: About, history: History) -> None:
    anomalies = [anomaly for found in checkers.check(history).values() for anomaly in found]
    way.claim(
        f"{WRITERS} services at once and no kill: every event comes once, in the order of its aggregate",
        not anomalies and len(history.delivered) == len(history.committed) > 0,
        topics=["I.5/polling-publisher/poll-outbox-table", "I.5/outbox-implementation/publisher-process"],
        fact=f"{len(history.delivered):,} events, {len(anomalies)} anomalies",
    )


def claim_clean_up(way: About, shop: Shop, quiet: History, moved: int) -> None:
    done = killing.clean_up(shop)
    gone = len(done.early + done.late)
    way.claim(
        "a day that was made too late gets its rows from the default, under services and relay at work: none is missed,"
        " none comes twice",
        moved > 0 and done.published == 1 and not any(checkers.check(quiet).values()),
        topics=["I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{moved:,} rows moved",
    )
    way.claim(
        "a day is dropped when all in it is marked, and not before: the outbox is emptied without deleting a row",
        done.day not in done.early and done.day in done.late and done.left == 0 < done.before,
        topics=["I.5/outbox-implementation/delivery-tracking", "I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{done.before:,} rows gone with {gone} table, which one unpublished event had kept",
    )


if __name__ == "__main__":
    experiment.main()
