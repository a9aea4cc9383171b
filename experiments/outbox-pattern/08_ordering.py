"""Are the events of one order consumed in the order in which they were written?

The same events go out by relays that compete and by one relay, with a key and without, from producers that place keys
by different rules. Several services change the same orders, and each relay of the ladder publishes. A consumer with a
buffer on sequence numbers puts right what came wrong, and names what is missing.

Where wrong and right differ: TAKE in outbox/wrong/deleting.py says `skip locked`, CursorRelay (outbox/relay/cursor.py)
lets no second relay in by its `hold`; in outbox/wrong/placing.py it is what each function returns, producer and key.
"""

from dataclasses import replace

from msgspec import structs
from outbox.ordering import InOrder
from outbox.relay.cursor import CursorRelay
from outbox.relay.publisher import Publisher
from outbox.stage import contention, ordered
from outbox.windows import RelayWindow
from outbox.wrong import placing
from outbox.wrong.deleting import SkipLockedRelay

from shared import postgres
from shared.checkers import lost, reordered
from shared.experiment import Experiment, Run
from shared.history import Action, History, now
from shared.tap import Tap

PER_AGGREGATE = "I.5/ordering-considerations/per-aggregate-ordering"
KEYS = "I.5/ordering-considerations/partition-keys"
NUMBERS = "I.5/ordering-considerations/sequence-numbers"
experiment = Experiment(
    title="Ordering: the events of one order, in order",
    servers=("postgres", "kafka", "connect"),
    topics=(PER_AGGREGATE, KEYS, NUMBERS),
)
COMPETING, ONE = "four relays, SKIP LOCKED", "one relay with a cursor"
KEYLESS, MIXED, SAME = "no key", "two partitioners", "one partitioner (murmur2)"
BUFFER = "four relays, buffer behind"
RELAYS = 4
RELAYING = {COMPETING: (SkipLockedRelay, RELAYS), ONE: (CursorRelay, 1)}  # by what, in how many processes
PLACING = {KEYLESS: placing.without_key, MIXED: placing.by_turns, SAME: placing.by_key}
WRONG = COMPETING, KEYLESS, MIXED


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=300, demo=1_000, full=5_000)
    run.parameters.update(
        {"events": count, "orders": ordered.ORDERS, "competing relays": RELAYS, "partitions": ordered.PARTITIONS}
    )
    about = {way: run.about(way, wrong_way=way in WRONG) for way in (COMPETING, ONE, KEYLESS, MIXED, SAME, BUFFER)}
    found: dict[str, History] = {}
    with run.step("two relays, step by step: the second one takes event 2 while the first one holds event 1"):
        by_hand = step_by_step(run)
    for way, (relay, number) in RELAYING.items():
        with run.step(f"{way}, {number} process{'es' * (number > 1)}"):
            found[way] = ordered.relayed(about[way], relay, number, count)
    claim_relays(run, by_hand, found)
    for way, place in PLACING.items():
        with run.step(f"{way}: published"):
            found[way] = ordered.published(about[way], place, run.pick(smoke=120, demo=count, full=count))
    with run.step("where each partitioner puts a key"):
        compare_partitioners(run, run.pick(smoke=300, demo=1_000, full=10_000))
    claim_keys(run, found)
    with run.step("several services change the same orders, the relays of the ladder at work"):
        contention.claim(run, contention.relayed(run, run.pick(smoke=80, demo=2_000, full=10_000)))
    with run.step("a service that inserts its event before it has the order's lock"):
        contention.claim_before_lock(run, contention.event_before_lock(run))
    with run.step("a buffer on sequence numbers behind the competing relays"):
        found[BUFFER] = buffered(run, found[COMPETING])
        claim_numbers(run, found)
    for way, history in found.items():
        about[way].figure("events consumed out of order", len(reordered(history)), "events")


def step_by_step(run: Run) -> History:
    """Two events of one order. The hook of the first relay lets the second one go ahead."""
    shop = replace(ordered.open_shop(run, "step-by-step", 2), orders=1)
    recorder = run.recorder("step-by-step", "experiment")
    with postgres.connect(shop.conninfo) as mine, postgres.connect(shop.conninfo) as other:
        ordered.insert_all(mine, shop, recorder)
        overtaking = SkipLockedRelay(other, Publisher(shop.broker))

        def overtake(window: str) -> None:
            if window == RelayWindow.AFTER_READ:
                overtaking.step()

        with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
            SkipLockedRelay(mine, Publisher(shop.broker), at=overtake).step()
            tap.catch_up()
    return run.judge("step-by-step", variant=COMPETING, wrong_way=True)


def compare_partitioners(run: Run, count: int) -> None:
    """The same keys by librdkafka's default (CRC32) and by murmur2, beside the partition that Java's formula says."""
    apart, differ, keys = ordered.not_as_java(run, count)
    mixed, same = run.about(MIXED, wrong_way=True, topics=[KEYS]), run.about(SAME, topics=[KEYS])
    mixed.figure("keys in another partition than Java's", 100 * apart / keys, "%")
    same.figure("keys in another partition than Java's", 100 * differ / keys, "%")
    mixed.claim(
        "Python's default partitioner (CRC32) and Java's (murmur2) put most keys into different partitions",
        apart > keys / 2,
        fact=f"{apart:,} of {keys:,} keys over {ordered.PARTITIONS} partitions",
    )
    same.claim(
        "partitioner=murmur2_random puts every key where Java's producers, Debezium's among them, put it",
        differ == 0,
        fact=f"{differ} of {keys:,} keys elsewhere",
    )


def buffered(run: Run, history: History) -> History:
    """What the consumer of the competing relays received, once more through the buffer; released means handled."""
    name, buffer = ordered.slug(BUFFER), InOrder()
    recorder = run.recorder(name, "consumer")
    recorder.add(*(op for op in history.ops if op.action is Action.WRITE))
    for op, event in ordered.as_events(history):
        for released in buffer.take(event):
            handled = structs.replace(op, value=released.id, key=released.subject, seq=released.sequence, offset=-1)
            recorder.add(structs.replace(handled, at=now()))
    return run.judge(name, variant=BUFFER)


def claim_relays(run: Run, by_hand: History, found: dict[str, History]) -> None:
    competing, wrong, right = run.about(COMPETING, wrong_way=True, topics=[PER_AGGREGATE]), found[COMPETING], found[ONE]
    competing.claim(
        "two relays that skip each other's locked rows: the second one overtakes the first within one order",
        [op.seq for op in by_hand.delivered] == [2, 1] and len(reordered(by_hand)) == 1,
        fact="event 2 delivered before event 1, nothing killed, nothing slow",
    )
    competing.claim(
        "relays that skip each other's locked rows: it happens by itself, with a key and within one partition",
        len(reordered(wrong)) > 0 and not lost(wrong),
        fact=ordered.out_of_order(wrong),
    )
    run.about(ONE, topics=[PER_AGGREGATE, KEYS]).claim(
        "one relay with a cursor, the order's id as the key: the events of every order come in order",
        ordered.in_order(right),
        fact=ordered.out_of_order(right),
    )


def claim_keys(run: Run, found: dict[str, History]) -> None:
    texts = {
        KEYLESS: "no key: an order's events lie in several partitions, and are consumed out of order",
        MIXED: "one key, two partitioners: an order's events lie in two partitions, and are consumed out of order",
    }
    for way, text in texts.items():
        history, apart = found[way], ordered.spread(found[way])
        run.about(way, wrong_way=True, topics=[KEYS]).claim(
            text,
            len(reordered(history)) > 0 and not lost(history),
            fact=f"{ordered.out_of_order(history)}; {apart} of {ordered.ORDERS} orders in several partitions",
        )
    run.about(SAME, topics=[KEYS]).claim(
        "one key, one partitioner: every order has its partition, and its events come in order",
        ordered.in_order(found[SAME]) and ordered.spread(found[SAME]) == 0,
        fact=ordered.out_of_order(found[SAME]),
    )


def claim_numbers(run: Run, found: dict[str, History]) -> None:
    about, before, after = run.about(BUFFER, topics=[NUMBERS]), found[COMPETING], found[BUFFER]
    about.claim(
        "sequence numbers: a consumer that holds back what comes early handles every order's events in order",
        len(reordered(before)) > 0 and ordered.in_order(after),
        fact=f"{len(reordered(before))} out of order before the buffer, {len(reordered(after))} behind it",
    )
    missing, gaps = ordered.with_a_gap(before)
    about.claim(
        "sequence numbers: an event that never came is known by its number, and its order stops there, no other does",
        gaps == missing,
        fact="missing: " + ", ".join(f"number {number} of {key}" for key, number in gaps.items()),
    )


if __name__ == "__main__":
    experiment.main()
