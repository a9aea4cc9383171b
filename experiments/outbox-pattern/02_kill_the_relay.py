"""The relay is killed in every window between reading a batch and having it marked: what is lost, what is doubled?

Two polling publishers drain the same outbox under the same kills. One publishes and then marks; the other marks and
then publishes, which is what "delete the row, then send it" comes to.

The two ways differ in the order of two calls, `_publish` and `_mark`: PollingPublisher.step (relay/polling.py) and
MarkFirstPublisher.step (wrong/mark_first.py).
"""

from dataclasses import dataclass

from outbox.relay.polling import PollingPublisher  # publish, then mark
from outbox.stage.shop import RelayClass, Shop, relay, watched
from outbox.windows import RelayWindow
from outbox.wrong.mark_first import MarkFirstPublisher  # mark, then publish

from shared.about import About
from shared.checkers import aborted_read, duplicate_delivery, lost, phantom
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import History
from shared.run import slug

CRASH, AGAIN = "I.5/failure-scenarios/publisher-crash", "I.5/outbox-pattern/at-least-once-delivery"
APART, TRACKING = "I.5/outbox-pattern/separate-process-publishes", "I.5/outbox-implementation/delivery-tracking"
PUBLISH, MARK = "I.5/polling-publisher/publish-messages", "I.5/polling-publisher/mark-as-published"
experiment = Experiment(
    title="The outbox: kill the relay in every window",
    servers=("postgres", "kafka"),
    topics=(APART, AGAIN, TRACKING, PUBLISH, MARK, CRASH),
)
# The windows in which the broker has the batch and the database does not know it yet.
DOUBLING = RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=200, demo=1_000, full=10_000)
    batch = count // 10
    run.parameters.update({"events per case": count, "batch": batch})
    wrong, right = run.about("mark, then publish", wrong_way=True), run.about("publish, then mark")
    early = {window: kill_once(wrong, MarkFirstPublisher, window, count, batch) for window in RelayWindow}
    late = {window: kill_once(right, PollingPublisher, window, count, batch) for window in RelayWindow}
    claim_wrong(wrong, early, batch)
    claim_right(right, late, batch)
    claim_tracking(right, early, late)


@dataclass(frozen=True)
class Killed:
    """What one kill left: the history, and how many events database and broker had when the relay died."""

    history: History
    marked: int
    sent: int


def kill_once(about: About, way: RelayClass, window: RelayWindow, count: int, batch: int) -> Killed:
    """A backlog, a relay killed at its fourth batch, and another one that does the rest."""
    with about.run.step(f"{about.variant}: kill -9 {window}"):
        shop = Shop.open(about.run, slug(f"{about.variant} {window}"), count)
        shop.write_backlog()
        with watched(about.run, shop) as tap:
            about.run.worker("relay", relay, shop, way, batch, kill=Kill(window, nth=4)).wait()
            marked, sent = count - shop.waiting(), len(shop.published())
            with about.run.worker("relay", relay, shop, way, batch):
                shop.wait_until_published()
        shop.settle(tap.recorder)
    history = about.judge(shop.history.stem, f"SIGKILL {window}")
    for name, found in (("events lost", lost(history)), ("events delivered twice", duplicate_delivery(history))):
        about.figure(name, len(found), "events", x=window, x_label="killed")
    return Killed(history, marked, sent)


def claim_wrong(wrong: About, early: dict[RelayWindow, Killed], batch: int) -> None:
    history = early[RelayWindow.AFTER_COMMIT].history
    wrong.claim(
        "mark, then publish: killed in between, the whole batch is lost for good, and nothing shows it",
        len(lost(history)) == batch,
        topics=[CRASH, MARK],
        fact=f"{len(lost(history))} of {len(history.committed)} events lost, all marked as published",
    )


def claim_right(right: About, late: dict[RelayWindow, Killed], batch: int) -> None:
    histories = {window: killed.history for window, killed in late.items()}
    missing = sum(len(lost(one) + phantom(one) + aborted_read(one)) for one in histories.values())
    right.claim(
        "publish, then mark: killed in any window, nothing is lost",
        missing == 0 and all(len(one.committed) > 3 * batch for one in histories.values()),
        topics=[CRASH, APART],
        fact=f"{missing} lost in {len(histories)} windows",
    )
    doubled = {window: len(duplicate_delivery(one)) for window, one in histories.items()}
    right.claim(
        "publish, then mark: what was published and not yet marked comes twice, nothing else does",
        all(count == (batch if window in DOUBLING else 0) for window, count in doubled.items()),
        topics=[AGAIN, PUBLISH],
        fact=", ".join(f"{window}: {count}" for window, count in doubled.items()),
    )


def claim_tracking(right: About, early: dict[RelayWindow, Killed], late: dict[RelayWindow, Killed]) -> None:
    ahead, behind = (max(one.marked - one.sent for one in kills.values()) for kills in (early, late))
    right.claim(
        "publish, then mark: at no kill is an event marked that the broker does not have",
        behind <= 0 < ahead,
        topics=[TRACKING, MARK],
        fact=f"marked too early: {max(behind, 0)}; by the wrong way: {ahead}",
    )


if __name__ == "__main__":
    experiment.main()
