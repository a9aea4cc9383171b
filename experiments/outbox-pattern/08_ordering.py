"""Are the events of one order consumed in the order in which they were written?

The same events are published by competing relays and by one relay, with a key and without, by producers that choose
partitions by different rules. Several services change the same orders, and each relay of experiment 06 publishes. A
consumer with a buffer on sequence numbers restores the order, and names what is missing.

Where wrong and right differ: TAKE in outbox/wrong/deleting.py says `skip locked`, CursorRelay (outbox/relay/cursor.py)
refuses a second relay by its `hold`. In outbox/wrong/placing.py it is what each function returns, producer and key.
"""

from msgspec import structs
from outbox.ordering import InOrder
from outbox.relay.cursor import CursorRelay
from outbox.stage import contention
from outbox.wrong import placing
from outbox.wrong.deleting import SkipLockedRelay

from shared.about import About
from shared.checkers import lost, reordered
from shared.experiment import Experiment, Run
from shared.history import Action, History, now
from shared.run import slug

PER_AGGREGATE = "I.5/ordering-considerations/per-aggregate-ordering"
KEYS = "I.5/ordering-considerations/partition-keys"
NUMBERS = "I.5/ordering-considerations/sequence-numbers"
experiment = Experiment(
    title="Ordering: the events of one order, in order",
    servers=("postgres", "kafka", "connect"),
    topics=(PER_AGGREGATE, KEYS, NUMBERS),
)
RELAYS = 4


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=300, demo=1_000, full=5_000)
    run.parameters.update({"events": count, "orders": contention.ORDERS, "competing relays": RELAYS})
    run.parameters["partitions"] = contention.PARTITIONS
    competing = run.about("four relays, SKIP LOCKED", wrong_way=True, topics=[PER_AGGREGATE])
    one = run.about("one relay with a cursor", topics=[PER_AGGREGATE, KEYS])
    with run.step("two relays, step by step: the second one takes event 2 while the first one holds event 1"):
        by_hand = contention.step_by_step(competing, SkipLockedRelay)
    with run.step(f"{competing.variant}, {RELAYS} processes"):
        overtaken = contention.compete(competing, SkipLockedRelay, RELAYS, count)
    with run.step(f"{one.variant}, 1 process"):
        kept = contention.compete(one, CursorRelay, 1, count)
    claim_relays(competing, by_hand, overtaken, one, kept)
    compare_keys(
        run,
        run.about("no key", wrong_way=True, topics=[KEYS]),
        run.about("two partitioners", wrong_way=True, topics=[KEYS]),
        run.about("one partitioner (murmur2)", topics=[KEYS]),
    )
    with run.step("several services change the same orders, the relays of the ladder at work"):
        claim_services(contention.by_every_relay(run, run.pick(smoke=80, demo=2_000, full=10_000)))
    with run.step("a service that inserts its event before it has the order's lock"):
        early = run.about(contention.BEFORE_LOCK, wrong_way=True, topics=[PER_AGGREGATE])
        claim_before_lock(early, *contention.event_before_lock(run))
    buffer = run.about("four relays, buffer behind", topics=[NUMBERS])
    with run.step("a buffer on sequence numbers behind the competing relays"):
        claim_numbers(buffer, overtaken, buffered(buffer, overtaken))


def claim_relays(competing: About, by_hand: History, overtaken: History, one: About, kept: History) -> None:
    competing.claim(
        "two relays that skip each other's locked rows: the second one overtakes the first within one order",
        [op.seq for op in by_hand.delivered] == [2, 1] and len(reordered(by_hand)) == 1,
        fact="event 2 delivered before event 1, nothing killed, nothing slow",
    )
    competing.claim(
        "relays that skip each other's locked rows: it happens by itself, with a key and within one partition",
        len(reordered(overtaken)) > 0 and not lost(overtaken),
        fact=contention.out_of_order(overtaken),
    )
    one.claim(
        "one relay with a cursor, the order's id as the key: the events of every order come in order",
        contention.in_order(kept),
        fact=contention.out_of_order(kept),
    )


def compare_keys(run: Run, keyless: About, mixed: About, same: About) -> None:
    """Without a key, by two partitioners, and by one; then each partitioner beside what Java's formula says."""
    count = run.pick(smoke=120, demo=1_000, full=5_000)
    with run.step("published without a key, by two partitioners, and by one"):
        spread = contention.publish(keyless, placing.without_key, count)
        apart = contention.publish(mixed, placing.by_turns, count)
        together = contention.publish(same, placing.by_key, count)
    with run.step("where each partitioner puts a key"):
        claim_partitioners(mixed, same, *contention.not_as_java(run, run.pick(smoke=300, demo=1_000, full=10_000)))
    claim_spread(keyless, spread, "no key: an order's events lie in several partitions, and are consumed out of order")
    claim_spread(
        mixed,
        apart,
        "one key, two partitioners: an order's events lie in two partitions, and are consumed out of order",
    )
    same.claim(
        "one key, one partitioner: every order has its partition, and its events come in order",
        contention.in_order(together) and contention.spread(together) == 0,
        fact=contention.out_of_order(together),
    )


def claim_spread(about: About, history: History, text: str) -> None:
    several = f"{contention.spread(history)} of {contention.ORDERS} orders in several partitions"
    holds = len(reordered(history)) > 0 and not lost(history)
    about.claim(text, holds, fact=f"{contention.out_of_order(history)}; {several}")


def claim_partitioners(mixed: About, same: About, apart: int, differ: int, keys: int) -> None:
    """The same keys by librdkafka's default (CRC32) and by murmur2."""
    mixed.figure("keys in another partition than Java's", 100 * apart / keys, "%")
    same.figure("keys in another partition than Java's", 100 * differ / keys, "%")
    mixed.claim(
        "Python's default partitioner (CRC32) and Java's (murmur2) put most keys into different partitions",
        apart > keys / 2,
        fact=f"{apart:,} of {keys:,} keys over {contention.PARTITIONS} partitions",
    )
    same.claim(
        "partitioner=murmur2_random puts every key where Java's producers, Debezium's among them, put it",
        differ == 0,
        fact=f"{differ} of {keys:,} keys elsewhere",
    )


def claim_services(found: list[contention.Judged]) -> None:
    """Which relays hold the order of orders that several services change."""
    for judged in found:
        text = (
            f"{judged.about.variant}: several services change the same orders, with and without a write before the "
            "order's lock, and "
        )
        if judged.about.wrong_way:
            text += "an order's later event is published first, by one relay, with a key and no kill"
            holds = judged.whole and min(judged.wrong.values()) > 0
        else:
            text += "every order's events come in order"
            holds = judged.whole and not reordered(judged.history)
        judged.about.claim(text, holds, topics=[PER_AGGREGATE], fact=str(judged))


def claim_before_lock(about: About, tables: dict[str, contention.Sent], log: contention.Sent) -> None:
    """What no relay can put right."""
    about.claim(
        "a service that inserts its event before it has the order's lock: every relay that reads the table publishes "
        "the order's second event first",
        all(sent.came == [2, 1] for sent in tables.values()),
        fact="; ".join(f"{way}: {sent.came}" for way, sent in tables.items()),
    )
    about.claim(
        "the same by the log relay: it has the order of commits, but each event as it was inserted, without the number "
        "that its order's lock gave to it",
        log.came == [1, 2] and log.numbers == [0, 0],
        topics=[PER_AGGREGATE, NUMBERS],
        fact=f"events {log.came} were sent with the numbers {log.numbers}",
    )


def buffered(about: About, history: History) -> History:
    """What the consumer of the competing relays received, once more through the buffer; released means handled."""
    name, buffer = slug(about.variant), InOrder()
    recorder = about.run.recorder(name, "consumer")
    recorder.add(*(op for op in history.ops if op.action is Action.WRITE))
    for op, event in contention.as_events(history):
        for released in buffer.take(event):
            handled = structs.replace(op, value=released.id, key=released.subject, seq=released.sequence, offset=-1)
            recorder.add(structs.replace(handled, at=now()))
    return contention.judge(about, name)


def claim_numbers(about: About, before: History, after: History) -> None:
    about.claim(
        "sequence numbers: a consumer that holds back what comes early handles every order's events in order",
        len(reordered(before)) > 0 and contention.in_order(after),
        fact=f"{len(reordered(before))} out of order before the buffer, {len(reordered(after))} behind it",
    )
    missing, gaps = contention.with_a_gap(before)
    about.claim(
        "sequence numbers: a missing event is known by its number; only its order stops there",
        gaps == missing,
        fact="missing: " + ", ".join(f"number {number} of {key}" for key, number in gaps.items()),
    )


if __name__ == "__main__":
    experiment.main()
