"""Nobody reads a replication slot any more: what happens to the disk, and what to the events?

Two Postgres of the run's own under the same traffic of other tables: one keeps the log for the slot without end, one
has `max_slot_wal_keep_size` and gives the slot up. An alarm comes before; after it, there are two ways back: a new
slot, and a new slot with what the old one owed published from the table.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

from outbox.relay import wal
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.slots import MB, Slot, first_missing, log_on_disk, look, publish_from, wait_until_read
from outbox.stage.processes import Shop, noted, serve, write_backlog
from outbox.table import create

from shared import kafka, postgres
from shared.checkers import duplicate_delivery, lost, phantom, reordered
from shared.errors import LabError
from shared.experiment import Experiment, Run
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection
from shared.servers.handle import Handle, own_instance
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="The abandoned slot",
    servers=("kafka",),
    topics=(
        "I.5/change-data-capture/database-log-monitoring",
        "I.5/failure-scenarios/recovery-procedures",
    ),
)
UNLIMITED, LIMITED = "no limit", "max_slot_wal_keep_size"
NEW_SLOT, TABLE_FIRST = "a new slot", "a new slot, and the table"
LIMIT = 64  # MB; Postgres' MB, of 2^20 bytes
CHUNK = 8  # MB of other tables' traffic between two checkpoints
ALARM = LIMIT * MB // 2  # bytes of log kept for a slot, at which somebody is woken
ABANDONED = "nobody reads the slot"
# The log's own size small, so that what is on the disk is what the slot keeps.
SETTINGS = {"max_wal_size": "32MB", "min_wal_size": "32MB"}
HEARTBEAT = 0.5  # seconds after which a reader that has no news says how far it is
CLICKS = "insert into clicks (page) select repeat(md5(i::text), 250) from generate_series(1, %s) as i"  # 8 kB each


@dataclass
class Site:
    """A Postgres of the run's own, with a busy table that has nothing to do with the outbox."""

    variant: str
    server: Handle
    connection: Connection


@dataclass
class Outage:
    """One shop whose relay goes away: its events before, in the outage, and after it."""

    way: str
    shop: Shop
    tap: Tap
    began: int = 0  # when the relay went, in ns as in the history


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=5_000)
    traffic = run.pick(smoke=16, demo=24, full=48)
    run.parameters.update({"events before, in and after": count, "limit MB": LIMIT, "traffic MB": traffic * CHUNK})
    with run.step("start two Postgres"):
        unlimited, limited = open_site(run, UNLIMITED, "-1"), open_site(run, LIMITED, f"{LIMIT}MB")
    with run.step("no limit: nobody reads the slot"):
        unread = open_shop(run, unlimited, "unlimited", 0)
        claim_unlimited(run, press(run, unlimited, unread.slot, traffic))
    with ExitStack() as things:
        outages = [things.enter_context(open_outage(run, limited, way, count)) for way in (NEW_SLOT, TABLE_FIRST)]
        with run.step("the slot is read: an idle outbox, busy other tables"):
            claim_read(run, before_outage(run, limited, outages, traffic))
        with run.step(f"{LIMITED} = {LIMIT}MB: nobody reads the slot"):
            for outage in outages:
                outage.began = now()
                write_backlog(replace(outage.shop, seed=run.seed + 1, prefix="during"))
            claim_limited(run, limited, press(run, limited, outages[0].shop.slot, traffic), outages)
        histories = {}
        for outage in outages:
            with run.step(f"the way back: {outage.way}"):
                histories[outage.way] = come_back(run, limited, outage)
        claim_ways_back(run, histories, count)


def open_site(run: Run, variant: str, keep: str) -> Site:
    # The names of these settings have underscores, which Run.own would make dots of.
    settings = {**SETTINGS, "max_slot_wal_keep_size": keep}
    server = run.stack_of_things.enter_context(own_instance("postgres", run.stack.settings, None, settings))
    connection = run.stack_of_things.enter_context(postgres.connect(server.endpoint.url))
    connection.execute("create table clicks (id bigint generated always as identity, page text)")
    connection.execute("alter table clicks alter page set storage external")  # not compressed: bytes are bytes
    return Site(variant, server, connection)


def open_shop(run: Run, site: Site, name: str, count: int) -> Shop:
    """An outbox with a slot, which bears the name of the schema."""
    schema = f"{run.name}_{name}"
    conninfo = postgres.create_schema(site.server.endpoint, schema)
    create(conninfo)
    wal.set_up(conninfo, schema, schema)
    return Shop(conninfo, run.endpoints["kafka"], run.topic(name), run.history_file(name), run.seed, count, slot=schema)


@contextmanager
def open_outage(run: Run, site: Site, way: str, count: int) -> Iterator[Outage]:
    name = way.replace(", ", "_").replace(" ", "_")
    shop = open_shop(run, site, name, count)
    with Tap("consumer", shop.broker, [shop.topic], run.recorder(name, "experiment")) as tap:
        yield Outage(way, shop, tap)


@contextmanager
def relaying(shop: Shop) -> Iterator[None]:
    """The log relay at work, in a thread."""
    with postgres.connect(shop.conninfo) as connection, Recorder(shop.history, "relay") as recorder:
        relay = WalRelay(shop.conninfo, connection, Publisher(shop.broker, on_acknowledged=noted(recorder)), shop.slot)
        relay.heartbeat = HEARTBEAT
        stop = threading.Event()
        thread = threading.Thread(target=relay.run, args=[stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            relay.close()


def press(run: Run, site: Site, slot: str, chunks: int, variant: str = "", patient: bool = False) -> list[Slot]:
    """Traffic of another table, in chunks with a checkpoint after each; the slot after every chunk.

    `patient`: go on only when no alarm is on, as a reader that is alive may be behind for a moment.
    """
    seen = [look(site.connection, slot)]
    for number in range(1, chunks + 1):
        site.connection.execute(CLICKS, [CHUNK * 1_000_000 // 8_000])
        site.connection.execute("checkpoint")
        if patient:
            until("the slot to move", lambda: not look(site.connection, slot).alarm(ALARM))
        seen.append(look(site.connection, slot))
        note(run, site, variant or f"nobody reads, {site.variant}", number, seen[-1])
    return seen


def note(run: Run, site: Site, variant: str, number: int, slot: Slot) -> None:
    wrong = site.variant == UNLIMITED
    kept = {"log kept for the slot": slot.kept, "log on the disk": log_on_disk(site.connection)}
    for name, size in kept.items():
        x = float(number * CHUNK)
        run.figure(name, size / MB, "MB", variant=variant, wrong_way=wrong, x=x, x_label="MB written by others")


def claim_unlimited(run: Run, seen: list[Slot]) -> None:
    growing = all(later.kept > earlier.kept for earlier, later in pairwise(seen))
    run.claim(
        "a slot that nobody reads keeps the log of all tables, and without a limit it ends when the disk is full",
        growing and seen[-1].kept > 1.5 * LIMIT * 2**20,
        topics=["I.5/change-data-capture/database-log-monitoring"],
        fact=f"{seen[-1].kept / MB:.0f} MB kept, all that was written, for an outbox without a row",
        variant=UNLIMITED,
        wrong_way=True,
    )


def before_outage(run: Run, site: Site, outages: list[Outage], chunks: int) -> list[Slot]:
    """All is well: both relays publish, then their outboxes are idle while other tables are busy."""
    with ExitStack() as things:
        for outage in outages:
            things.enter_context(relaying(outage.shop))
            write_backlog(outage.shop)
            outage.tap.wait_for(outage.shop.count)
        return press(run, site, outages[0].shop.slot, chunks // 2 + 2, "read, outbox idle", patient=True)


def claim_read(run: Run, seen: list[Slot]) -> None:
    run.claim(
        "an idle outbox does not hold a busy database's log back when its reader confirms what passes by",
        all(slot.active and not slot.alarm(ALARM) for slot in seen[1:]) and len(seen) * CHUNK > LIMIT,
        topics=["I.5/change-data-capture/database-log-monitoring"],
        fact=f"{(len(seen) - 1) * CHUNK} MB written, {seen[-1].kept / MB:.0f} MB kept",
        variant=LIMITED,
    )


def claim_limited(run: Run, site: Site, seen: list[Slot], outages: list[Outage]) -> None:
    statuses = [slot.status for slot in seen]
    alarms = [slot for slot in seen if slot.alarm(ALARM)]
    disk = log_on_disk(site.connection)
    run.claim(
        f"with {LIMITED}, Postgres gives the slot up instead of the disk",
        statuses[-1] == "lost" and disk < (LIMIT + 64) * 2**20,
        topics=["I.5/change-data-capture/database-log-monitoring"],
        fact=f"{' > '.join(dict.fromkeys(statuses))}; {disk / MB:.0f} MB of log on the disk",
        variant=LIMITED,
    )
    run.claim(
        "an alarm on what a slot keeps comes while there is time: the slot is not lost yet",
        bool(alarms) and alarms[0].status != "lost" and (alarms[0].safe or 0) > 0,
        topics=["I.5/change-data-capture/database-log-monitoring", "I.5/failure-scenarios/recovery-procedures"],
        fact=f"{alarms[0].kept / MB:.0f} MB kept, {(alarms[0].safe or 0) / MB:.0f} MB more until it is lost",
        variant=LIMITED,
    )
    refusal = try_to_read(outages[0].shop)
    unpublished = sum(first_missing_of(outage) is not None for outage in outages)
    run.claim(
        "a relay that comes back to a lost slot is told so, and what was written meanwhile is in the table",
        "can no longer" in refusal and unpublished == len(outages),
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact=refusal.partition("ERROR:")[2].strip().partition("\n")[0].replace(outages[0].shop.slot, "..."),
        variant=LIMITED,
    )


def try_to_read(shop: Shop) -> str:
    """What a log relay says when it is started; empty when it starts."""
    try:
        with relaying(shop):
            return ""
    except LabError as error:
        return str(error)


def first_missing_of(outage: Outage) -> int | None:
    """Asked of the broker: it knows best what was published."""
    published = [kafka.headers(m)["ce_id"].decode() for m in kafka.read_all(outage.shop.broker, outage.shop.topic)]
    with postgres.connect(outage.shop.conninfo) as connection:
        return first_missing(connection, published)


def come_back(run: Run, site: Site, outage: Outage) -> History:
    """The slot is made anew while the service writes on; with or without the table, the log relay takes over."""
    shop = outage.shop
    after = replace(shop, seed=run.seed + 2, prefix="after", rate=200.0)
    service = run.worker("service", serve, after, "outbox")
    with postgres.connect(shop.conninfo) as connection:
        query = "select exists (select from outbox where starts_with(aggregate_id, 'after'))"
        until("the service to write", lambda: (connection.execute(query).fetchone() or [False])[0])
    fault = Op(outage.began, "relay", Action.FAULT, Outcome.OK, note=ABANDONED, until=now())
    outage.tap.recorder.add(fault)
    wal.tear_down(shop.conninfo, shop.slot)
    wal.set_up(shop.conninfo, shop.slot, shop.slot)
    if outage.way == TABLE_FIRST:
        publish_what_is_missing(run, outage)
    with relaying(shop):
        service.wait()
        wait_until_read(site.connection, shop.slot)
        outage.tap.catch_up()
    return run.judge(shop.history.stem, variant=outage.way, wrong_way=outage.way == NEW_SLOT, fault=ABANDONED)


def publish_what_is_missing(run: Run, outage: Outage) -> None:
    start = first_missing_of(outage)
    if start is not None:
        with postgres.connect(outage.shop.conninfo) as connection:
            moved = publish_from(connection, Publisher(outage.shop.broker), start)
        run.figure("published from the table", moved, "events", variant=outage.way)


def claim_ways_back(run: Run, histories: dict[str, History], count: int) -> None:
    for way, history in histories.items():
        for name, found in {
            "events lost": lost(history),
            "events delivered twice": duplicate_delivery(history),
        }.items():
            run.figure(name, len(found), "events", variant=way, wrong_way=way == NEW_SLOT)
    careless, careful = histories[NEW_SLOT], histories[TABLE_FIRST]
    run.claim(
        "a new slot begins now: all that was written in the outage is lost, and nothing says so",
        len(lost(careless)) >= count,
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact=f"{len(lost(careless))} of {len(careless.committed)} events lost",
        variant=NEW_SLOT,
        wrong_way=True,
    )
    wrong = lost(careful) + phantom(careful) + reordered(careful)
    run.claim(
        "a new slot first, then the table from the first missing event, then the log: nothing is lost, some come twice",
        not wrong and len(careful.committed) == 3 * count,
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact=f"{len(lost(careful))} of {len(careful.committed)} lost, {len(duplicate_delivery(careful))} twice",
        variant=TABLE_FIRST,
    )


if __name__ == "__main__":
    experiment.main()
