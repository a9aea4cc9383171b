"""Nobody reads a replication slot any more: what happens to the disk, and what to the events?

Two Postgres of the run's own under the same traffic of other tables: one keeps the log for the slot without end, one
has `max_slot_wal_keep_size` and gives the slot up. An alarm comes before; after it, there are two ways back: a new
slot, and a new slot with what the old one owed published from the table.

Where wrong and right differ: one setting, `max_slot_wal_keep_size`, in `main`; and `new_slot_and_table`, which after
`new_slot` looks for the first event that was not published, and calls `publish_from` (outbox/operating/slots.py).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

from outbox.operating import slots
from outbox.relay import wal
from outbox.relay.publisher import Publisher
from outbox.stage import outages
from outbox.stage.outages import Outage, Site

from shared import checkers, postgres
from shared.about import About
from shared.experiment import Experiment, Run
from shared.history import History, now

MONITORING = "I.5/change-data-capture/database-log-monitoring"
RECOVERY = "I.5/failure-scenarios/recovery-procedures"
experiment = Experiment(
    title="The abandoned slot",
    servers=("kafka",),
    topics=(MONITORING, RECOVERY),
)
UNLIMITED, LIMITED = "no limit", "max_slot_wal_keep_size"
NEW_SLOT, TABLE_FIRST = "a new slot", "a new slot, and the table"
LIMIT = 64  # MB; Postgres' MB, of 2^20 bytes
ALARM = LIMIT * slots.MB // 2  # bytes of log kept for a slot, at which somebody is woken
ABANDONED = "nobody reads the slot"


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=5_000)
    traffic = run.pick(smoke=16, demo=24, full=48)
    run.parameters.update(
        {"events before, in and after": count, "limit MB": LIMIT, "traffic MB": traffic * outages.CHUNK}
    )
    with run.step("start two Postgres"):
        unlimited, limited = outages.open_site(run, "-1"), outages.open_site(run, f"{LIMIT}MB")
    with run.step("no limit: nobody reads the slot"):
        unread = outages.shop_at(run, unlimited, "unlimited", 0)
        about = run.about(f"nobody reads, {UNLIMITED}", wrong_way=True)
        claim_unlimited(run, outages.press(about, unlimited, unread.slot, traffic))
    with ExitStack() as things:
        ways = run.about(NEW_SLOT, wrong_way=True, topics=[RECOVERY]), run.about(TABLE_FIRST, topics=[RECOVERY])
        both = [things.enter_context(outages.open_outage(way, limited, count)) for way in ways]
        with run.step("the slot is read: an idle outbox, busy other tables"):
            claim_read(run, before_outage(run, limited, both, traffic))
        with run.step(f"{LIMITED} = {LIMIT}MB: nobody reads the slot"):
            for outage in both:
                outage.began = now()
                replace(outage.shop, seed=run.seed + 1, prefix="during").write_backlog()
            seen = outages.press(run.about(f"nobody reads, {LIMITED}"), limited, both[0].shop.slot, traffic)
            claim_limited(run, limited, seen, both)
        histories = []
        for outage, way_back in zip(both, (new_slot, new_slot_and_table), strict=True):
            with run.step(f"the way back: {outage.about.variant}"):
                histories.append(come_back(run, limited, outage, way_back))
        claim_ways_back(ways, histories, count)


def claim_unlimited(run: Run, seen: list[slots.Slot]) -> None:
    growing = all(later.kept > earlier.kept for earlier, later in pairwise(seen))
    run.about(UNLIMITED, wrong_way=True, topics=[MONITORING]).claim(
        "a slot that nobody reads keeps the log of all tables, and without a limit it ends when the disk is full",
        growing and seen[-1].kept > 1.5 * LIMIT * 2**20,
        fact=f"{seen[-1].kept / slots.MB:.0f} MB kept, all that was written, for an outbox without a row",
    )


def before_outage(run: Run, site: Site, both: list[Outage], chunks: int) -> list[slots.Slot]:
    """All is well: both relays publish, then their outboxes are idle while other tables are busy."""
    with ExitStack() as things:
        for outage in both:
            things.enter_context(outages.relaying(outage.shop))
            outage.shop.write_backlog()
            outage.tap.wait_for(outage.shop.count)
        about = run.about("read, outbox idle")
        return outages.press(about, site, both[0].shop.slot, chunks // 2 + 2, alarm=ALARM)


def claim_read(run: Run, seen: list[slots.Slot]) -> None:
    run.about(LIMITED, topics=[MONITORING]).claim(
        "an idle outbox does not hold a busy database's log back when its reader confirms what passes by",
        all(slot.active and not slot.alarm(ALARM) for slot in seen[1:]) and len(seen) * outages.CHUNK > LIMIT,
        fact=f"{(len(seen) - 1) * outages.CHUNK} MB written, {seen[-1].kept / slots.MB:.0f} MB kept",
    )


def claim_limited(run: Run, site: Site, seen: list[slots.Slot], both: list[Outage]) -> None:
    about = run.about(LIMITED, topics=[MONITORING])
    statuses = [slot.status for slot in seen]
    alarms = [slot for slot in seen if slot.alarm(ALARM)]
    left = (alarms[0].safe or 0) if alarms else 0
    disk = slots.log_on_disk(site.connection)
    about.claim(
        f"with {LIMITED}, Postgres gives the slot up instead of the disk",
        statuses[-1] == "lost" and disk < (LIMIT + 64) * 2**20,
        fact=f"{' > '.join(dict.fromkeys(statuses))}; {disk / slots.MB:.0f} MB of log on the disk",
    )
    about.claim(
        "an alarm on what a slot keeps comes while there is time: the slot is not lost yet",
        bool(alarms) and alarms[0].status != "lost" and left > 0,
        topics=[MONITORING, RECOVERY],
        fact=f"{alarms[0].kept / slots.MB:.0f} MB kept, {left / slots.MB:.0f} MB more until it is lost",
    )
    refusal = outages.try_to_read(both[0].shop)
    unpublished = sum(outages.first_missing_of(outage.shop) is not None for outage in both)
    about.claim(
        "a relay that comes back to a lost slot is told so, and what was written meanwhile is in the table",
        "can no longer" in refusal and unpublished == len(both),
        topics=[RECOVERY],
        fact=refusal.partition("ERROR:")[2].strip().partition("\n")[0].replace(both[0].shop.slot, "..."),
    )


def come_back(run: Run, site: Site, outage: Outage, way: Callable[[Outage], None]) -> History:
    """The way back is taken while the service writes on; then the log relay takes over."""
    shop = outage.shop
    service = outages.start_service(run, replace(shop, seed=run.seed + 2, prefix="after", rate=200.0))
    outage.ended(ABANDONED)
    way(outage)
    with outages.relaying(shop):
        service.wait()
        slots.wait_until_read(site.connection, shop.slot)
        outage.tap.catch_up()
    return outage.about.judge(shop.history.stem, fault=ABANDONED)


def new_slot(outage: Outage) -> None:
    """WRONG: the slot is made anew, and begins now. What the old one owed is only in the table."""
    shop = outage.shop
    wal.tear_down(shop.conninfo, shop.slot)
    wal.set_up(shop.conninfo, shop.slot, shop.slot)


def new_slot_and_table(outage: Outage) -> None:
    """RIGHT: then, what the old slot owed is published from the table, before the log relay takes over."""
    new_slot(outage)
    start = outages.first_missing_of(outage.shop)
    if start is not None:
        with postgres.connect(outage.shop.conninfo) as connection:
            moved = slots.publish_from(connection, Publisher(outage.shop.broker), start)
        outage.about.figure("published from the table", moved, "events")


def claim_ways_back(ways: Sequence[About], histories: Sequence[History], count: int) -> None:
    for way, history in zip(ways, histories, strict=True):
        way.figure("events lost", len(checkers.lost(history)), "events")
        way.figure("events delivered twice", len(checkers.duplicate_delivery(history)), "events")
    (wrong_way, right_way), (careless, careful) = ways, histories
    wrong_way.claim(
        "a new slot begins now: all that was written in the outage is lost, and nothing says so",
        len(checkers.lost(careless)) >= count,
        fact=f"{len(checkers.lost(careless))} of {len(careless.committed)} events lost",
    )
    missing, twice = checkers.lost(careful), checkers.duplicate_delivery(careful)
    right_way.claim(
        "a new slot first, then the table from the first missing event, then the log: nothing is lost, some come twice",
        not missing + checkers.phantom(careful) + checkers.reordered(careful) and len(careful.committed) == 3 * count,
        fact=f"{len(missing)} of {len(careful.committed)} lost, {len(twice)} twice",
    )


if __name__ == "__main__":
    experiment.main()
