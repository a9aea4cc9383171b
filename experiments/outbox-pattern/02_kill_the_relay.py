"""The relay is killed in every window between reading a batch and having it marked: what is lost, what is doubled?

Two polling publishers drain the same outbox under the same kills. One publishes and then marks; the other marks and
then publishes, which is what "delete the row, then send it" comes to.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from outbox.partitions import create_day, drop_published
from outbox.stage.processes import Shop, make_relay, relay, serve, settle, write_backlog
from outbox.table import create, insert_event, pending
from outbox.windows import RelayWindow
from psycopg import sql

from shared import kafka, postgres
from shared.checkers import aborted_read, check, duplicate_delivery, lost, phantom
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import History
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

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
WRITERS = 4
DAY_OF = "select relname from outbox join pg_class on pg_class.oid = outbox.tableoid where id = %s"
PATIENT = timedelta(minutes=1)  # of a clean-up that waits for the transactions of a busy machine
# The windows in which the broker has the batch and the database does not know it yet.
DOUBLING = RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=200, demo=1_000, full=10_000)
    batch = count // 10
    run.parameters.update({"events per case": count, "batch": batch, "writers": WRITERS})
    killed: dict[tuple[str, RelayWindow], Killed] = {}
    for kind in (WRONG, RIGHT):
        for window in RelayWindow:
            with run.step(f"{kind}: kill -9 {window}"):
                killed[kind, window] = kill_once(run, kind, window, count, batch)
    with run.step(f"{RIGHT}: no kill, {WRITERS} services writing"):
        quiet, quiet_shop, moved = concurrently(run, count // WRITERS, batch)
    with run.step("compare payloads, byte for byte"):
        claim_bytes(run, quiet_shop)
    note_figures(run, killed)
    claim_wrong(run, killed, batch)
    claim_right(run, killed, batch)
    claim_tracking(run, killed)
    claim_quiet(run, quiet)
    with run.step("clean-up: days are dropped"):
        claim_clean_up(run, quiet_shop, quiet, moved)


@dataclass(frozen=True)
class Killed:
    """What one kill left: the history, and how far database and broker were when the relay died."""

    history: History
    marked: int  # events marked as published
    sent: int  # events that the broker had


def kill_once(run: Run, kind: str, window: RelayWindow, count: int, batch: int) -> Killed:
    """A backlog, a relay killed at its fourth batch, and another one that does the rest."""
    shop = open_shop(run, f"{kind} {window}", count)
    write_backlog(shop)
    recorder = run.recorder(shop.history.stem, "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        run.worker("relay", relay, shop, kind, batch, 0.02, Kill(window, nth=4)).wait()
        marked, sent = count - waiting(shop), len({m.value() for m in kafka.read_all(shop.broker, shop.topic)})
        finish(run, shop, kind, batch)
        tap.catch_up()
    settle(shop, recorder)
    history = run.judge(shop.history.stem, variant=kind, wrong_way=kind == WRONG, fault=f"SIGKILL {window}")
    return Killed(history, marked, sent)


def concurrently(run: Run, count: int, batch: int) -> tuple[History, Shop, int]:
    """Several services write while the relay runs, and nothing is killed: a checker must find nothing here either.

    Nobody has made the day's partition: it is made in the midst, and rows move; also returns how many.
    """
    shop = open_shop(run, "no kill", count)
    recorder = run.recorder(shop.history.stem, "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        writers = [writer(run, shop, number) for number in range(WRITERS)]
        relaying = run.worker("relay", relay, shop, RIGHT, batch, 0.02)
        tap.wait_for(count)  # of WRITERS * count
        moved = make_days_late(shop)
        for service in writers:
            service.wait()
        wait_until_published(shop)
        relaying.stop()
        tap.catch_up()
    return run.judge(shop.history.stem, variant=RIGHT), shop, moved


def make_days_late(shop: Shop) -> int:
    """The partitions of the days that rows in the default are of; returns how many rows moved there."""
    with postgres.connect(shop.conninfo) as connection:
        days = connection.execute("select distinct (created_at at time zone 'utc')::date from outbox_default")
        names = [create_day(connection, day, PATIENT) for (day,) in days.fetchall()]
        return sum(rows_of(connection, name) for name in names)


def rows_of(connection: postgres.Connection, table: str) -> int:
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0


def writer(run: Run, shop: Shop, number: int) -> Worker:
    """One of several services, each with its own orders."""
    own = replace(shop, seed=run.seed + number, prefix=f"order{number}")
    return run.worker(f"service-{number}", serve, own, "outbox", 0, None, f"service-{number}")


def open_shop(run: Run, name: str, count: int) -> Shop:
    conninfo = run.schema(f"_{len(run.histories)}")
    create(conninfo)
    slug = name.replace(", ", "-").replace(" ", "-")
    return Shop(conninfo, run.endpoints["kafka"], run.topic(slug), run.history_file(slug), run.seed, count)


def finish(run: Run, shop: Shop, kind: str, batch: int) -> None:
    """Another relay does what is left."""
    with run.worker("relay", relay, shop, kind, batch, 0.02):
        wait_until_published(shop)


def wait_until_published(shop: Shop) -> None:
    with postgres.connect(shop.conninfo) as connection:
        until("every event to be marked as published", lambda: pending(connection) == 0)


def waiting(shop: Shop) -> int:
    with postgres.connect(shop.conninfo) as connection:
        return pending(connection)


def note_figures(run: Run, killed: dict[tuple[str, RelayWindow], Killed]) -> None:
    for (kind, window), left in killed.items():
        counts = {"events lost": lost(left.history), "events delivered twice": duplicate_delivery(left.history)}
        for name, found in counts.items():
            run.figure(name, len(found), "events", variant=kind, wrong_way=kind == WRONG, x=window, x_label="killed")


def claim_wrong(run: Run, killed: dict[tuple[str, RelayWindow], Killed], batch: int) -> None:
    history = killed[WRONG, RelayWindow.AFTER_COMMIT].history
    run.claim(
        "mark, then publish: killed in between, the whole batch is lost for good, and nothing shows it",
        len(lost(history)) == batch,
        topics=["I.5/failure-scenarios/publisher-crash", "I.5/polling-publisher/mark-as-published"],
        fact=f"{len(lost(history))} of {len(history.committed)} events lost, all marked as published",
        variant=WRONG,
        wrong_way=True,
    )


def claim_right(run: Run, killed: dict[tuple[str, RelayWindow], Killed], batch: int) -> None:
    histories = {window: killed[RIGHT, window].history for window in RelayWindow}
    missing = sum(len(lost(history) + phantom(history) + aborted_read(history)) for history in histories.values())
    run.claim(
        "publish, then mark: killed in any window, nothing is lost",
        missing == 0 and all(len(history.committed) > 3 * batch for history in histories.values()),
        topics=["I.5/failure-scenarios/publisher-crash", "I.5/outbox-pattern/separate-process-publishes"],
        fact=f"{missing} lost in {len(histories)} windows",
        variant=RIGHT,
    )
    doubled = {window: len(duplicate_delivery(history)) for window, history in histories.items()}
    run.claim(
        "publish, then mark: what was published and not yet marked comes twice, nothing else does",
        all(count == (batch if window in DOUBLING else 0) for window, count in doubled.items()),
        topics=["I.5/outbox-pattern/at-least-once-delivery", "I.5/polling-publisher/publish-messages"],
        fact=", ".join(f"{window}: {count}" for window, count in doubled.items()),
        variant=RIGHT,
    )


def claim_tracking(run: Run, killed: dict[tuple[str, RelayWindow], Killed]) -> None:
    early = {
        kind: max(left.marked - left.sent for (k, _), left in killed.items() if k == kind) for kind in (WRONG, RIGHT)
    }
    run.claim(
        "publish, then mark: at no kill is an event marked that the broker does not have",
        early[RIGHT] <= 0 < early[WRONG],
        topics=["I.5/outbox-implementation/delivery-tracking", "I.5/polling-publisher/mark-as-published"],
        fact=f"marked too early: {max(early[RIGHT], 0)}; by the wrong way: {early[WRONG]}",
        variant=RIGHT,
    )


def claim_bytes(run: Run, shop: Shop) -> None:
    with postgres.connect(shop.conninfo) as connection:
        stored = {str(row[0]).encode(): bytes(row[1]) for row in connection.execute("select id, payload from outbox")}
    published = {kafka.headers(m)["ce_id"]: kafka.value(m) for m in kafka.read_all(shop.broker, shop.topic)}
    run.claim(
        "the table holds all that consumers need: id, key, type, and the payload to the byte",
        stored == published and len(stored) > 0,
        topics=["I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{len(stored):,} payloads equal",
        variant=RIGHT,
    )


def claim_quiet(run: Run, history: History) -> None:
    anomalies = [anomaly for found in check(history).values() for anomaly in found]
    run.claim(
        f"{WRITERS} services at once and no kill: every event comes once, in the order of its aggregate",
        not anomalies and len(history.delivered) == len(history.committed) > 0,
        topics=["I.5/polling-publisher/poll-outbox-table", "I.5/outbox-implementation/publisher-process"],
        fact=f"{len(history.delivered):,} events, {len(anomalies)} anomalies",
        variant=RIGHT,
    )


def claim_clean_up(run: Run, shop: Shop, quiet: History, moved: int) -> None:
    """All is published; one event more is not, and keeps its day."""
    with postgres.connect(shop.conninfo) as connection:
        last = next(replace(shop, count=1, prefix="late").events())
        insert_event(connection, last, shop.topic)
        make_days_late(shop)
        (day,) = connection.execute(DAY_OF, [last.id]).fetchone() or ("",)
        before, end = rows_of(connection, "outbox"), datetime.now(UTC).date() + timedelta(days=1)
        early = drop_published(connection, end, patience=PATIENT)
        one_more = make_relay(shop, RIGHT, connection).step()
        late = drop_published(connection, end, patience=PATIENT)
        left = rows_of(connection, "outbox")
    run.claim(
        "a day that was made too late gets its rows from the default, under services and relay at work: none is missed,"
        " none comes twice",
        moved > 0 and one_more == 1 and not any(check(quiet).values()),
        topics=["I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{moved:,} rows moved",
        variant=RIGHT,
    )
    run.claim(
        "a day is dropped when all in it is marked, and not before: the outbox is emptied without deleting a row",
        day not in early and day in late and left == 0 < before,
        topics=["I.5/outbox-implementation/delivery-tracking", "I.5/outbox-implementation/outbox-table-schema"],
        fact=f"{before:,} rows gone with {len(early + late)} table, which one unpublished event had kept",
        variant=RIGHT,
    )


if __name__ == "__main__":
    experiment.main()
