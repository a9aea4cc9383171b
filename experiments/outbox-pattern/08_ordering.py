"""Are the events of one order consumed in the order in which they were written?

The same events go out by relays that compete and by one relay, with a key and without, from producers that place keys
by different rules. Several services change the same orders, and each relay of the ladder publishes. A consumer with a
buffer on sequence numbers puts right what came wrong, and names what is missing.
"""

import random
from dataclasses import replace

from confluent_kafka import Producer
from msgspec import structs
from outbox.ordering import InOrder, java_partition
from outbox.stage import contention
from outbox.stage.consuming import BusyOrders
from outbox.stage.processes import announced, make_relay, relay, write_backlog
from outbox.table import create, insert_event, pending
from outbox.windows import RelayWindow
from outbox.wrong.placing import Placing, by_key, by_turns, partitions, without_key

from shared import kafka, postgres
from shared.checkers import duplicate_delivery, lost, reordered
from shared.event import Event
from shared.experiment import Experiment, Run
from shared.history import Action, History, Op, Outcome, now
from shared.tap import Tap
from shared.wait import until

experiment = Experiment(
    title="Ordering: the events of one order, in order",
    servers=("postgres", "kafka"),
    topics=(
        "I.5/ordering-considerations/per-aggregate-ordering",
        "I.5/ordering-considerations/partition-keys",
        "I.5/ordering-considerations/sequence-numbers",
    ),
)
COMPETING, ONE = "four relays, SKIP LOCKED", "one relay with a cursor"
KEYLESS, MIXED, SAME = "no key", "two partitioners", "one partitioner (murmur2)"
BUFFER = "four relays, buffer behind"
WRONG = COMPETING, KEYLESS, MIXED
ORDERS = 4  # few, so that the events of one order come close together
RELAYS = 4
PARTITIONS = 3


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=300, demo=1_000, full=5_000)
    run.parameters.update({"events": count, "orders": ORDERS, "competing relays": RELAYS, "partitions": PARTITIONS})
    found: dict[str, History] = {}
    with run.step("two relays, step by step: the second one takes event 2 while the first one holds event 1"):
        by_hand = step_by_step(run)
    for way, kind, relays in ((COMPETING, "row by row", RELAYS), (ONE, "cursor", 1)):
        with run.step(f"{way}, {relays} process{'es' * (relays > 1)}"):
            found[way] = relayed(run, way, kind, relays, count)
    claim_relays(run, by_hand, found)
    for way, placing in ((KEYLESS, without_key), (MIXED, by_turns), (SAME, by_key)):
        with run.step(f"{way}: published"):
            found[way] = published(run, way, placing, run.pick(smoke=120, demo=count, full=count))
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
        wrong = len(reordered(history))
        run.figure("events consumed out of order", wrong, "events", variant=way, wrong_way=way in WRONG)


def open_shop(run: Run, name: str, count: int) -> BusyOrders:
    conninfo = run.schema(f"_{len(run.histories)}")
    create(conninfo)
    topic, history = run.topic(name, PARTITIONS), run.history_file(name)
    return BusyOrders(conninfo, run.endpoints["kafka"], topic, history, run.seed, count, orders=ORDERS)


def slug(way: str) -> str:
    return "-".join(word.strip("(),") for word in way.lower().split())


def step_by_step(run: Run) -> History:
    """Two events of one order. The hook of the first relay lets the second one go ahead."""
    shop = replace(open_shop(run, "step-by-step", 2), orders=1)
    first, second = shop.events()
    recorder = run.recorder("step-by-step", "experiment")
    with postgres.connect(shop.conninfo) as mine, postgres.connect(shop.conninfo) as other:
        for event in (first, second):
            insert_event(mine, event, shop.topic)
            recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)
        overtaking = make_relay(shop, "row by row", other)

        def overtake(window: str) -> None:
            if window == RelayWindow.AFTER_READ:
                overtaking.step()

        with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
            make_relay(shop, "row by row", mine, at=overtake).step()
            tap.catch_up()
    return run.judge("step-by-step", variant=COMPETING, wrong_way=True)


def relayed(run: Run, way: str, kind: str, relays: int, count: int) -> History:
    """So many relay processes, and a backlog for them when all of them look for one."""
    shop = open_shop(run, slug(way), count)
    recorder = run.recorder(slug(way), "experiment")
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        names = [f"relay-{number}" for number in range(1, relays + 1)]
        ready = {name: run.folder / f"{slug(way)}-{name}.ready" for name in names}
        workers = [run.worker(name, relay, shop, kind, 500, 0.02, None, name, True, ready[name]) for name in names]
        for path in ready.values():
            announced(path)
        write_backlog(shop)
        with postgres.connect(shop.conninfo) as connection:
            if kind == "row by row":
                until("the outbox to be empty", lambda: pending(connection) == 0, 120)
        tap.wait_for(count)
        for worker in workers:
            worker.stop()
        tap.catch_up()
    return run.judge(slug(way), variant=way, wrong_way=way in WRONG)


def published(run: Run, way: str, placing: Placing, count: int) -> History:
    """Published one by one, each acknowledged before the next. The consumer comes when all of them are there."""
    shop = open_shop(run, slug(way), count)
    default, ours = Producer(kafka.config(shop.broker)), kafka.producer(shop.broker)
    recorder = run.recorder(slug(way), "service")
    for event in shop.events():
        producer, key = placing(default, ours, event)
        message = event.to_kafka()
        producer.produce(shop.topic, message.value, key, headers=dict(message.headers))
        producer.flush()
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        tap.catch_up()
    return run.judge(slug(way), variant=way, wrong_way=way in WRONG)


def compare_partitioners(run: Run, count: int) -> None:
    """The same keys by librdkafka's default (CRC32) and by murmur2, beside the partition that Java's formula says."""
    broker, topic = run.endpoints["kafka"], run.topic("keys", PARTITIONS)
    rng = random.Random(run.seed)
    keys = sorted({f"order-{rng.randrange(10**9):09d}".encode() for _ in range(count)})
    default = partitions(Producer(kafka.config(broker)), topic, keys)
    ours = partitions(kafka.producer(broker), topic, keys)
    java = {key: java_partition(key, PARTITIONS) for key in keys}
    apart = sum(default[key] != java[key] for key in keys)
    run.figure("keys in another partition than Java's", 100 * apart / len(keys), "%", variant=MIXED, wrong_way=True)
    differ = sum(ours[key] != java[key] for key in keys)
    run.figure("keys in another partition than Java's", 100 * differ / len(keys), "%", variant=SAME)
    run.claim(
        "Python's default partitioner (CRC32) and Java's (murmur2) put most keys into different partitions",
        apart > len(keys) / 2,
        topics=["I.5/ordering-considerations/partition-keys"],
        fact=f"{apart:,} of {len(keys):,} keys over {PARTITIONS} partitions",
        variant=MIXED,
        wrong_way=True,
    )
    run.claim(
        "partitioner=murmur2_random puts every key where Java's producers, Debezium's among them, put it",
        differ == 0,
        topics=["I.5/ordering-considerations/partition-keys"],
        fact=f"{differ} of {len(keys):,} keys elsewhere",
        variant=SAME,
    )


def buffered(run: Run, history: History) -> History:
    """What the consumer of the competing relays received, once more through the buffer; released means handled."""
    name, buffer = slug(BUFFER), InOrder()
    recorder = run.recorder(name, "consumer")
    recorder.add(*(op for op in history.ops if op.action is Action.WRITE))
    for op, event in as_events(history):
        for released in buffer.take(event):
            handled = structs.replace(op, value=released.id, key=released.subject, seq=released.sequence, offset=-1)
            recorder.add(structs.replace(handled, at=now()))
    return run.judge(name, variant=BUFFER)


def as_events(history: History) -> list[tuple[Op, Event]]:
    """The deliveries, as far as a buffer looks at them."""
    return [(op, Event("shop", "/shop", op.key, id=op.value, sequence=op.seq)) for op in history.delivered]


def claim_relays(run: Run, by_hand: History, found: dict[str, History]) -> None:
    wrong, right = found[COMPETING], found[ONE]
    run.claim(
        "two relays that skip each other's locked rows: the second one overtakes the first within one order",
        [op.seq for op in by_hand.delivered] == [2, 1] and len(reordered(by_hand)) == 1,
        topics=["I.5/ordering-considerations/per-aggregate-ordering"],
        fact="event 2 delivered before event 1, nothing killed, nothing slow",
        variant=COMPETING,
        wrong_way=True,
    )
    run.claim(
        "relays that skip each other's locked rows: it happens by itself, with a key and within one partition",
        len(reordered(wrong)) > 0 and not lost(wrong),
        topics=["I.5/ordering-considerations/per-aggregate-ordering"],
        fact=out_of_order(wrong),
        variant=COMPETING,
        wrong_way=True,
    )
    run.claim(
        "one relay with a cursor, the order's id as the key: the events of every order come in order",
        in_order(right),
        topics=["I.5/ordering-considerations/per-aggregate-ordering", "I.5/ordering-considerations/partition-keys"],
        fact=out_of_order(right),
        variant=ONE,
    )


def claim_keys(run: Run, found: dict[str, History]) -> None:
    texts = {
        KEYLESS: "no key: an order's events lie in several partitions, and are consumed out of order",
        MIXED: "one key, two partitioners: an order's events lie in two partitions, and are consumed out of order",
    }
    for way, text in texts.items():
        history = found[way]
        run.claim(
            text,
            len(reordered(history)) > 0 and not lost(history),
            topics=["I.5/ordering-considerations/partition-keys"],
            fact=f"{out_of_order(history)}; {spread(history)} of {ORDERS} orders in several partitions",
            variant=way,
            wrong_way=True,
        )
    run.claim(
        "one key, one partitioner: every order has its partition, and its events come in order",
        in_order(found[SAME]) and spread(found[SAME]) == 0,
        topics=["I.5/ordering-considerations/partition-keys"],
        fact=out_of_order(found[SAME]),
        variant=SAME,
    )


def claim_numbers(run: Run, found: dict[str, History]) -> None:
    before, after = found[COMPETING], found[BUFFER]
    run.claim(
        "sequence numbers: a consumer that holds back what comes early handles every order's events in order",
        len(reordered(before)) > 0 and in_order(after),
        topics=["I.5/ordering-considerations/sequence-numbers"],
        fact=f"{len(reordered(before))} out of order before the buffer, {len(reordered(after))} behind it",
        variant=BUFFER,
    )
    missing, gaps = with_a_gap(before)
    run.claim(
        "sequence numbers: an event that never came is known by its number, and its order stops there, no other does",
        gaps == missing,
        topics=["I.5/ordering-considerations/sequence-numbers"],
        fact="missing: " + ", ".join(f"number {number} of {key}" for key, number in gaps.items()),
        variant=BUFFER,
    )


def with_a_gap(history: History) -> tuple[dict[str, int], dict[str, int]]:
    """The same deliveries without one: what was left out, and what the buffer says is missing."""
    events, buffer = as_events(history), InOrder(limit=len(history))
    key = history.delivered[0].key
    last = max(op.seq for op in history.delivered if op.key == key)
    for _, event in events:
        if (event.subject, event.sequence) != (key, last // 2):
            buffer.take(event)
    return {key: last // 2}, buffer.missing()


def in_order(history: History) -> bool:
    return len(history.committed) > 0 and not reordered(history) + lost(history) + duplicate_delivery(history)


def out_of_order(history: History) -> str:
    return f"{len(reordered(history)):,} of {len(history.committed):,} events out of order"


def spread(history: History) -> int:
    """How many orders have events in more than one partition."""
    places: dict[str, set[int]] = {}
    for op in history.delivered:
        places.setdefault(op.key, set()).add(op.partition)
    return sum(len(found) > 1 for found in places.values())


if __name__ == "__main__":
    experiment.main()
