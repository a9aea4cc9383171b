"""A consumer dies before its offset is committed, a relay sends a batch again: how does every event count once?

The same payments are read by consumers that differ in one thing: by what they know an event that they had before, and
whether they note it in the transaction of the effect. Every account is compared with what was paid.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from outbox.consumer import ConsumeWindow
from outbox.inbox import forget
from outbox.stage.consuming import SCHEMA, Payments, accounts, consume, due, euros
from outbox.stage.processes import Shop, make_relay, relay, write_backlog
from outbox.table import create
from outbox.windows import RelayWindow

from shared import postgres
from shared.checkers import duplicate_delivery, duplicate_effect, lost
from shared.experiment import Experiment, Run
from shared.faults import Kill
from shared.history import Action, History, Outcome
from shared.wait import until

experiment = Experiment(
    title="Idempotent consumer: every event counts once",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/idempotency-handling/duplicate-detection",
        "I.5/idempotency-handling/message-ids",
        "I.5/idempotency-handling/consumer-idempotency",
    ),
)
NONE, FIRST, LAST = "no inbox", "inbox first, effect after", "effect first, inbox after"
OFFSET, HASH, RIGHT = "offset as id", "payload hash as id", "event id, one transaction"
KILLED = {  # what the consumer does -> where it is killed
    NONE: ConsumeWindow.AFTER_EFFECT,
    FIRST: ConsumeWindow.BETWEEN,
    LAST: ConsumeWindow.BETWEEN,
    OFFSET: ConsumeWindow.AFTER_EFFECT,
    HASH: ConsumeWindow.AFTER_EFFECT,
    RIGHT: ConsumeWindow.BETWEEN,
}
OUTAGE = timedelta(seconds=1)  # how long the relay is down at least before it sends again
KEPT = {"ids kept for half the outage": OUTAGE / 2, "ids kept for sixty outages": OUTAGE * 60}
TOO_SHORT, LONG_ENOUGH = KEPT


@dataclass(frozen=True)
class Outcomes:
    """What one consumer made of the payments."""

    history: History
    twice: int  # effects had again
    never: int  # events without their effect
    wrong: int  # cents by which accounts are off, all of them together
    lost: int = 0


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=80, demo=600, full=6_000)
    run.parameters.update({"payments": count, "relay's batch": count // 4, "outage (s)": OUTAGE.total_seconds()})
    with run.step("payments, published once"):
        once = publish(run, "once", count, killed=False)
    with run.step("each consumer, killed by -9 and started again"):
        by_kill = consume_all(run, once, KILLED, "killed")
    with run.step("payments, with a relay that is killed after publishing a batch"):
        again = publish(run, "again", count, killed=True)
    with run.step("each consumer reads the batch twice"):
        by_relay = consume_all(run, again, dict.fromkeys(KILLED), "again")
    claim_without(run, by_kill[NONE], by_relay[NONE])
    claim_apart(run, by_kill)
    claim_ids(run, by_relay)
    claim_right(run, by_kill[RIGHT], by_relay[RIGHT])
    with run.step("ids are forgotten while the relay is down"):
        kept = forget_too_early(run, count)
    claim_kept(run, kept)


def open_shop(run: Run, name: str, count: int) -> Payments:
    conninfo = run.schema(f"_{name}")
    create(conninfo)
    topic, history = run.topic(name), run.history_file(f"published-{name}")
    return Payments(conninfo, run.endpoints["kafka"], topic, history, run.seed, count)


def publish(run: Run, name: str, count: int, killed: bool) -> Payments:
    """All payments to the topic; with `killed`, a batch twice: the relay dies when the broker has its second one."""
    shop = open_shop(run, name, count)
    write_backlog(shop)
    if killed:
        publish_and_die(run, shop)
    publish_rest(shop)
    return shop


def publish_and_die(run: Run, shop: Shop) -> None:
    kill = Kill(RelayWindow.AFTER_PUBLISH, nth=2)
    run.worker("relay", relay, shop, "publish, then mark", shop.count // 4, 0.02, kill).wait()


def publish_rest(shop: Shop) -> None:
    with postgres.connect(shop.conninfo) as connection:
        relaying = make_relay(shop, "publish, then mark", connection, shop.count // 4)
        while relaying.step():
            continue


def consume_all(
    run: Run, shop: Payments, windows: dict[str, ConsumeWindow] | dict[str, None], case: str
) -> dict[str, Outcomes]:
    """Every consumer at once, each with a group and accounts of its own; killed ones are started again."""
    homes = {way: database(run, f"{case}_{number}") for number, way in enumerate(windows)}
    files = {way: replace(shop, history=run.history_file(name(way, case))) for way in windows}
    killed = [way for way, window in windows.items() if window]
    nth = random.Random(f"{run.seed} {case}").randrange(shop.count // 4, shop.count // 2)
    for ways, dying in ((killed, True), (list(windows), False)):
        running = [
            run.worker(name(way, case), consume, files[way], way, windows[way] if dying else None, nth, homes[way])
            for way in ways
        ]
        for worker in running:
            worker.wait()
    return {way: outcomes(run, shop, way, case, windows[way], homes[way]) for way in windows}


def name(way: str, case: str) -> str:
    return f"{case}-{way.replace(', ', '-').replace(' ', '-')}"


def database(run: Run, suffix: str) -> str:
    """A consumer's own tables."""
    conninfo = run.schema(f"_{suffix}")
    with postgres.connect(conninfo) as connection:
        connection.execute(SCHEMA)
    return conninfo


def outcomes(run: Run, shop: Payments, way: str, case: str, window: ConsumeWindow | None, home: str) -> Outcomes:
    """Judge the consumer's history, together with what was written and published, and its accounts."""
    wrong_way, fault = way != RIGHT and way != LONG_ENOUGH, f"SIGKILL {window or RelayWindow.AFTER_PUBLISH}"
    with run.history_file(name(way, case)).open("ab") as file:
        file.write(shop.history.read_bytes())
    history = run.judge(name(way, case), variant=way, wrong_way=wrong_way, fault=fault)
    effects = {op.value for op in history.of(Action.EFFECT, Outcome.OK)}
    never, paid, had = len(history.committed - effects), due(shop), accounts(home)
    wrong = sum(abs(paid[customer] - had.get(customer, 0)) for customer in paid)
    found = Outcomes(history, len(duplicate_effect(history)), never, wrong, len(lost(history)))
    x = {"killed": "the consumer", "again": "the relay"}.get(case, "the relay, ids forgotten")
    for what, value in (("effects had twice", found.twice), ("effects never had", never)):
        run.figure(what, value, "events", variant=way, wrong_way=wrong_way, x=x, x_label="killed")
    return found


def claim_without(run: Run, killed: Outcomes, again: Outcomes) -> None:
    run.claim(
        "no inbox: killed between effect and offset, the consumer has effects twice, and the accounts are wrong",
        killed.twice > 0 and killed.wrong > 0 and killed.never == 0,
        topics=["I.5/idempotency-handling/consumer-idempotency"],
        fact=f"{killed.twice} effects twice, accounts off by {euros(killed.wrong)}",
        variant=NONE,
        wrong_way=True,
    )
    run.claim(
        "no inbox: a consumer that never fails has them twice too, when the relay sends a batch again",
        again.twice == len(duplicate_delivery(again.history)) > 0 and again.wrong > 0,
        topics=["I.5/idempotency-handling/duplicate-detection"],
        fact=f"{again.twice} effects twice, accounts off by {euros(again.wrong)}",
        variant=NONE,
        wrong_way=True,
    )


def claim_apart(run: Run, by_kill: dict[str, Outcomes]) -> None:
    first, last = by_kill[FIRST], by_kill[LAST]
    run.claim(
        "the id in a transaction before the effect: killed in between, the effect is never had",
        first.never == 1 and first.twice == 0 and first.wrong > 0,
        topics=["I.5/idempotency-handling/consumer-idempotency"],
        fact=f"{first.never} effect missing, accounts off by {euros(first.wrong)}; no event lost ({first.lost})",
        variant=FIRST,
        wrong_way=True,
    )
    run.claim(
        "the id in a transaction after the effect: killed in between, the effect is had twice",
        last.twice == 1 and last.never == 0 and last.wrong > 0,
        topics=["I.5/idempotency-handling/consumer-idempotency"],
        fact=f"{last.twice} effect twice, accounts off by {euros(last.wrong)}",
        variant=LAST,
        wrong_way=True,
    )


def claim_ids(run: Run, by_relay: dict[str, Outcomes]) -> None:
    offset, payload = by_relay[OFFSET], by_relay[HASH]
    places: dict[str, set[tuple[int, int]]] = {}
    for op in offset.history.delivered:
        places.setdefault(op.value, set()).add((op.partition, op.offset))
    moved = sum(len(found) > 1 for found in places.values())
    run.claim(
        "partition and offset as the id: what the relay sends again lies at a new offset, and counts again",
        offset.twice == moved > 0 and offset.wrong > 0,
        topics=["I.5/idempotency-handling/message-ids"],
        fact=f"{moved} events at two offsets, {offset.twice} effects twice",
        variant=OFFSET,
        wrong_way=True,
    )
    run.claim(
        "a hash of the payload as the id: two payments that say the same count as one",
        payload.never > 0 and payload.twice == 0 and payload.wrong > 0,
        topics=["I.5/idempotency-handling/message-ids"],
        fact=f"{payload.never} of {len(payload.history.committed)} payments ignored",
        variant=HASH,
        wrong_way=True,
    )


def claim_right(run: Run, killed: Outcomes, again: Outcomes) -> None:
    run.claim(
        "the event's id in the effect's transaction: whoever is killed, every event counts once, every cent is right",
        all((found.twice, found.never, found.wrong) == (0, 0, 0) for found in (killed, again)),
        topics=["I.5/idempotency-handling/consumer-idempotency", "I.5/idempotency-handling/message-ids"],
        fact=f"0 twice, 0 missing, accounts exact; {deliveries(killed, again)} deliveries again",
        variant=RIGHT,
    )


def deliveries(*found: Outcomes) -> int:
    return sum(len(duplicate_delivery(outcome.history)) for outcome in found)


def forget_too_early(run: Run, count: int) -> dict[str, Outcomes]:
    """Two consumers with an inbox, which forget at different ages. The relay comes back, and sends what it had sent."""
    shop = open_shop(run, "late", count)
    write_backlog(shop)
    publish_and_die(run, shop)
    homes = {kept: database(run, f"late_{number}") for number, kept in enumerate(KEPT)}
    read(run, shop, homes)
    for kept, age in KEPT.items():
        with postgres.connect(homes[kept]) as connection:
            until("the relay to have been down for its time", lambda c=connection: youngest(c) > OUTAGE)  # type: ignore[misc]
            forget(connection, age)
    publish_rest(shop)
    read(run, shop, homes)
    return {kept: outcomes(run, shop, kept, "late", None, home) for kept, home in homes.items()}


def read(run: Run, shop: Payments, homes: dict[str, str]) -> None:
    """Both consumers read on to the end of the topic."""
    files = {kept: replace(shop, history=run.history_file(name(kept, "late"))) for kept in homes}
    readers = [run.worker(name(kept, "late"), consume, files[kept], RIGHT, None, 1, homes[kept]) for kept in homes]
    for reader in readers:
        reader.wait()


def youngest(connection: postgres.Connection) -> timedelta:
    row = connection.execute("select clock_timestamp() - max(handled_at) from inbox").fetchone()
    return row[0] if row else timedelta()


def claim_kept(run: Run, found: dict[str, Outcomes]) -> None:
    short, long = found[TOO_SHORT], found[LONG_ENOUGH]
    run.claim(
        "ids forgotten earlier than their events can come again: the effects are had twice",
        short.twice == len(duplicate_delivery(short.history)) > 0 and short.wrong > 0,
        topics=["I.5/idempotency-handling/duplicate-detection"],
        fact=f"kept {KEPT[TOO_SHORT].total_seconds():g} s, came again after {came_again(short.history)}: "
        f"{short.twice} effects twice",
        variant=TOO_SHORT,
        wrong_way=True,
    )
    run.claim(
        "ids kept for longer than their events can come again: every event counts once",
        len(duplicate_delivery(long.history)) > 0 and (long.twice, long.never, long.wrong) == (0, 0, 0),
        topics=["I.5/idempotency-handling/duplicate-detection"],
        fact=f"kept {KEPT[LONG_ENOUGH].total_seconds():g} s, came again after {came_again(long.history)}: "
        f"{long.twice} effects twice",
        variant=LONG_ENOUGH,
    )


def came_again(history: History) -> str:
    """From the first delivery of an event to the second: the shortest and the longest time."""
    times: dict[str, list[int]] = {}
    for op in history.delivered:
        times.setdefault(op.value, []).append(op.at)
    gaps: Sequence[float] = [(at[-1] - at[0]) / 1e9 for at in times.values() if len(at) > 1]
    return f"{min(gaps):.1f} to {max(gaps):.1f} s" if gaps else "no time"


if __name__ == "__main__":
    experiment.main()
