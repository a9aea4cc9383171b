"""The outbox has a partition for every day: what if a day's is made too late, and when may it be dropped?

Several services write, one relay publishes, and nobody has made the day's partition: its rows are in the default. The
partition is made in the midst of it, and they move. Then the day is dropped, which empties the outbox and deletes no
row: it is tried while one of its events waits, and again when that is published.

Where it is decided: MOVE before ATTACH in `create_day`, and the second look, under a lock, in `drop_published`
(operating/partitions.py).
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from outbox.operating.partitions import create_day, drop_published
from outbox.relay.polling import PollingPublisher
from outbox.stage import days
from outbox.stage.shop import Shop, publish_all, relay, watched
from outbox.table import insert_event

from shared import postgres
from shared.about import About
from shared.checkers import check
from shared.experiment import Experiment, Run
from shared.history import History

SCHEMA, TRACKING = "I.5/outbox-implementation/outbox-table-schema", "I.5/outbox-implementation/delivery-tracking"
POLL, PUBLISHER = "I.5/polling-publisher/poll-outbox-table", "I.5/outbox-implementation/publisher-process"
experiment = Experiment(
    title="A partition for every day",
    servers=("postgres", "kafka"),
    topics=(SCHEMA, TRACKING, POLL, PUBLISHER),
)
WRITERS = 4
PATIENCE = timedelta(minutes=1)  # for the transactions of a busy machine to end


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=200, demo=1_000, full=10_000)
    run.parameters.update({"events": count, "writers": WRITERS})
    about, shop = run.about("publish, then mark"), Shop.open(run, "days", count // WRITERS)
    with run.step(f"{WRITERS} services and a relay at work, and the day's partition is made"):
        with watched(run, shop) as tap, run.worker("relay", relay, shop, PollingPublisher, count // 10):
            with days.services(run, shop, WRITERS):
                tap.wait_for(shop.count)  # of WRITERS times as many
                moved = make_late(shop)
            shop.wait_until_published()
        history = about.judge("days")
    claim_undisturbed(about, shop, history)
    with run.step("clean-up: the day is dropped"):
        claim_days(about, history, moved, clean_up(shop))


def make_late(shop: Shop) -> int:
    """The partitions of the days that rows in the default are of; returns how many rows moved there."""
    with postgres.connect(shop.conninfo) as connection:
        names = [create_day(connection, day, PATIENCE) for day in days.in_default(connection)]
        return sum(days.rows(connection, name) for name in names)


@dataclass(frozen=True)
class CleanUp:
    """The clean-up tried twice: while one event of a day waits, and when it is published."""

    day: str  # the name of its partition
    before: int  # rows in the outbox
    early: list[str]  # partitions dropped while it waited
    published: int  # events, then
    late: list[str]  # partitions dropped after that
    left: int  # rows in the outbox at the end


def clean_up(shop: Shop) -> CleanUp:
    """All is published; one event more is not, and keeps its day."""
    last = next(replace(shop, count=1, prefix="late").events())
    with postgres.connect(shop.conninfo) as connection:
        insert_event(connection, last, shop.topic)
        make_late(shop)
        day, before = days.day_of(connection, last), days.rows(connection)
        end = datetime.now(UTC).date() + timedelta(days=1)
        early = drop_published(connection, end, patience=PATIENCE)
        published = publish_all(shop, PollingPublisher)
        late = drop_published(connection, end, patience=PATIENCE)
        return CleanUp(day, before, early, published, late, days.rows(connection))


def claim_undisturbed(about: About, shop: Shop, history: History) -> None:
    stored = days.stored(shop)
    about.claim(
        "the table holds all that consumers need: id, key, type, and the payload to the byte",
        stored == shop.published() and len(stored) > 0,
        topics=[SCHEMA],
        fact=f"{len(stored):,} payloads equal",
    )
    anomalies = sum(map(len, check(history).values()))
    about.claim(
        f"{WRITERS} services at once and no kill: every event comes once, in the order of its aggregate",
        not anomalies and len(history.delivered) == len(history.committed) > 0,
        topics=[POLL, PUBLISHER],
        fact=f"{len(history.delivered):,} events, {anomalies} anomalies",
    )


def claim_days(about: About, history: History, moved: int, done: CleanUp) -> None:
    about.claim(
        "a day that was made too late gets its rows from the default, under services and relay at work: none is missed,"
        " none comes twice",
        moved > 0 and done.published == 1 and not any(check(history).values()),
        topics=[SCHEMA],
        fact=f"{moved:,} rows moved",
    )
    gone = len(done.early + done.late)
    about.claim(
        "a day is dropped when all in it is marked, and not before: the outbox is emptied without deleting a row",
        done.day not in done.early and done.day in done.late and done.left == 0 < done.before,
        topics=[TRACKING, SCHEMA],
        fact=f"{done.before:,} rows gone with {gone} table, which one unpublished event had kept",
    )


if __name__ == "__main__":
    experiment.main()
