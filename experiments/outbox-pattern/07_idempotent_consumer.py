"""A consumer dies before its offset is committed, a relay sends a batch again: how does every event count once?

The same payments are read by consumers that differ in two things: how they recognise an event that they have handled
before, and whether they note it in the transaction of the effect. Every account is compared with what was paid.

Where wrong and right differ: `with_inbox` (outbox/consumer.py) has the effect inside `inbox.once`, one transaction that
begins with ENTER. In outbox/wrong/consuming.py, `no_inbox` enters nothing, `inbox_first` and `inbox_last` do it before
and after the transaction of `credit`, `by_offset` and `by_payload` enter another mark than the event's id.
"""

from datetime import timedelta

from outbox.consumer import ConsumeWindow, with_inbox
from outbox.inbox import forget
from outbox.stage import payments
from outbox.stage.payments import Bookkeeper, Outcomes, euros
from outbox.wrong.consuming import by_offset, by_payload, inbox_first, inbox_last, no_inbox

from shared import postgres
from shared.experiment import Experiment, Run

DUPLICATES = "I.5/idempotency-handling/duplicate-detection"
IDS = "I.5/idempotency-handling/message-ids"
CONSUMERS = "I.5/idempotency-handling/consumer-idempotency"
experiment = Experiment(
    title="Idempotent consumer: every event counts once",
    servers=("postgres", "kafka"),
    topics=(DUPLICATES, IDS, CONSUMERS),
)
NONE, FIRST, LAST = "no inbox", "inbox first, effect after", "effect first, inbox after"
OFFSET, HASH, RIGHT = "offset as id", "payload hash as id", "event id, one transaction"
KEEPERS = {  # variant -> what the consumer does, and where it is killed
    NONE: (no_inbox, ConsumeWindow.AFTER_EFFECT),
    FIRST: (inbox_first, ConsumeWindow.BETWEEN),
    LAST: (inbox_last, ConsumeWindow.BETWEEN),
    OFFSET: (by_offset, ConsumeWindow.AFTER_EFFECT),
    HASH: (by_payload, ConsumeWindow.AFTER_EFFECT),
    RIGHT: (with_inbox, ConsumeWindow.BETWEEN),
}
OUTAGE = timedelta(seconds=1)  # how long the relay is down at least before it sends again
KEPT = {"ids kept for half the outage": OUTAGE / 2, "ids kept for sixty outages": OUTAGE * 60}
TOO_SHORT, LONG_ENOUGH = KEPT


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=80, demo=600, full=6_000)
    run.parameters.update({"payments": count, "relay's batch": count // 4, "outage (s)": OUTAGE.total_seconds()})
    keepers = [
        Bookkeeper(run.about(variant, wrong_way=handler is not with_inbox), handler, window)
        for variant, (handler, window) in KEEPERS.items()
    ]
    with run.step("payments, published once"):
        once = payments.open_payments(run, "once", count)
        payments.publish_rest(once)
    with run.step("each consumer, killed by -9 and started again"):
        by_kill = payments.consume_all(run, once, keepers, "killed", killing=True)
    with run.step("payments, with a relay that is killed after publishing a batch"):
        again = payments.open_payments(run, "again", count)
        payments.publish_and_die(run, again)
        payments.publish_rest(again)
    with run.step("each consumer reads the batch twice"):
        by_relay = payments.consume_all(run, again, keepers, "again", killing=False)
    claim_without(run, by_kill[NONE], by_relay[NONE])
    claim_apart(run, by_kill)
    claim_ids(run, by_relay)
    claim_right(run, by_kill[RIGHT], by_relay[RIGHT])
    with run.step("ids are forgotten while the relay is down"):
        kept = forget_too_early(run, count)
    claim_kept(run, kept)


def forget_too_early(run: Run, count: int) -> dict[str, Outcomes]:
    """Two consumers with an inbox, which forget at different ages. The relay comes back, and sends what it had sent."""
    shop = payments.open_payments(run, "late", count)
    payments.publish_and_die(run, shop)
    keepers = [Bookkeeper(run.about(kept, wrong_way=kept == TOO_SHORT), with_inbox) for kept in KEPT]
    homes = payments.open_homes(run, keepers, "late")
    payments.read(run, shop, keepers, "late", homes)
    for home, age in zip(homes, KEPT.values(), strict=True):
        with postgres.connect(home) as connection:
            payments.await_silence(connection, OUTAGE)
            forget(connection, age)
    payments.publish_rest(shop)
    payments.read(run, shop, keepers, "late", homes)
    return payments.judge(shop, keepers, "late", homes)


def claim_without(run: Run, killed: Outcomes, again: Outcomes) -> None:
    about = run.about(NONE, wrong_way=True)
    about.claim(
        "no inbox: killed between effect and offset, the consumer has effects twice, and the accounts are wrong",
        killed.twice > 0 and killed.wrong > 0 and killed.never == 0,
        topics=[CONSUMERS],
        fact=f"{killed.twice} effects twice, accounts off by {euros(killed.wrong)}",
    )
    about.claim(
        "no inbox: even a consumer that never fails has effects twice, when the relay sends a batch again",
        again.twice == again.again > 0 and again.wrong > 0,
        topics=[DUPLICATES],
        fact=f"{again.twice} effects twice, accounts off by {euros(again.wrong)}",
    )


def claim_apart(run: Run, by_kill: dict[str, Outcomes]) -> None:
    first, last = by_kill[FIRST], by_kill[LAST]
    run.about(FIRST, wrong_way=True, topics=[CONSUMERS]).claim(
        "inbox first, effect after, in two transactions: killed in between, the effect never happens",
        first.never == 1 and first.twice == 0 and first.wrong > 0,
        fact=f"{first.never} effect missing, accounts off by {euros(first.wrong)}; no event lost ({first.lost})",
    )
    run.about(LAST, wrong_way=True, topics=[CONSUMERS]).claim(
        "effect first, inbox after, in two transactions: killed in between, the effect happens twice",
        last.twice == 1 and last.never == 0 and last.wrong > 0,
        fact=f"{last.twice} effect twice, accounts off by {euros(last.wrong)}",
    )


def claim_ids(run: Run, by_relay: dict[str, Outcomes]) -> None:
    offset, payload = by_relay[OFFSET], by_relay[HASH]
    run.about(OFFSET, wrong_way=True, topics=[IDS]).claim(
        "partition and offset as the id: what the relay sends again lies at a new offset, and counts again",
        offset.twice == offset.moved > 0 and offset.wrong > 0,
        fact=f"{offset.moved} events at two offsets, {offset.twice} effects twice",
    )
    run.about(HASH, wrong_way=True, topics=[IDS]).claim(
        "a hash of the payload as the id: two payments that say the same count as one",
        payload.never > 0 and payload.twice == 0 and payload.wrong > 0,
        fact=f"{payload.never} of {len(payload.history.committed)} payments ignored",
    )


def claim_right(run: Run, killed: Outcomes, again: Outcomes) -> None:
    run.about(RIGHT, topics=[CONSUMERS, IDS]).claim(
        "the event's id in the effect's transaction: whoever is killed, every event counts once, every cent is right",
        killed.exact and again.exact,
        fact=f"0 twice, 0 missing, accounts exact; {killed.again + again.again} deliveries again",
    )


def claim_kept(run: Run, found: dict[str, Outcomes]) -> None:
    short, long = found[TOO_SHORT], found[LONG_ENOUGH]
    run.about(TOO_SHORT, wrong_way=True, topics=[DUPLICATES]).claim(
        "ids forgotten earlier than their events can come again: the effects happen twice",
        short.twice == short.again > 0 and short.wrong > 0,
        fact=f"kept {KEPT[TOO_SHORT].total_seconds():g} s, came again after {short.came_again}: "
        f"{short.twice} effects twice",
    )
    run.about(LONG_ENOUGH, topics=[DUPLICATES]).claim(
        "ids kept for longer than their events can come again: every event counts once",
        long.again > 0 and long.exact,
        fact=f"kept {KEPT[LONG_ENOUGH].total_seconds():g} s, came again after {long.came_again}: "
        f"{long.twice} effects twice",
    )


if __name__ == "__main__":
    experiment.main()
