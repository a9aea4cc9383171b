"""Rows that are no events, written among good ones: what does Debezium do with them, and who finds out?

Too large for the broker, of an unknown aggregate type, not the JSON they say they are, with a NUL byte, with missing
fields. Without a guard, with Connect told to tolerate errors, and with the guard that parks them as they are inserted.
And what reaches the topic, from here or from another program's producer: what do its consumers do with it?
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from confluent_kafka import Message
from outbox.deadletters import DeadLetter
from outbox.deadletters import kept as dead_letters
from outbox.guard import add_routes, install
from outbox.parking import parked, retry
from outbox.relay.debezium import Connector
from outbox.stage.badrows import Bad, write_bad_rows
from outbox.stage.consuming import SCHEMA, accounts, consume, due, handle_or_end, handle_or_keep
from outbox.stage.measuring import BACKLOG
from outbox.stage.processes import Shop, write_backlog
from outbox.table import create, insert_event

from shared import kafka, postgres
from shared.checkers import lost
from shared.errors import StartFailed
from shared.event import Event
from shared.experiment import Experiment, Run
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

experiment = Experiment(
    title="Bad rows under Debezium",
    servers=("postgres", "kafka", "connect"),
    topics=(
        "I.5/debezium-setup/kafka-connect",
        "I.5/debezium-setup/event-routing",
        "I.5/failure-scenarios/publisher-crash",
        "I.5/failure-scenarios/recovery-procedures",
    ),
)
UNGUARDED, TOLERANT, GUARDED = "no guard", "errors.tolerance=all", "guard.sql"
LARGE = 1_000_000  # bytes, and some more: what Connect's producer takes
ROUNDS = 5
CONSUMERS = handle_or_end, handle_or_keep
FOREIGN = {  # what another program's producer may write
    "a Latin-1 byte": b'{"customer":"M\xfcller","cents":1}',
    "nested 5,000 deep": b"[" * 5_000 + b"]" * 5_000,
    "NaN": b'{"customer":"customer-1","cents":NaN}',
    "half a surrogate pair": b'{"customer":"\\ud83d","cents":1}',
    "no data": b"",
}


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=5_000)
    run.parameters.update({"good events per case": count})
    with run.step(UNGUARDED):
        fail_for_good(run, count)
    with run.step(TOLERANT):
        shop, rejected = tolerate(run, count)
    with run.step("its consumers"):
        reach_consumers(run, shop, rejected)
    with run.step(GUARDED):
        guard(run, count)
    with run.step("what the guard costs an insert"):
        price_guard(run)


def fail_for_good(run: Run, count: int) -> None:
    """WRONG: nobody looks at a row before the broker does. Deleted from the table, it is still in the log."""
    with opened(run, "unguarded", count) as (shop, connector, tap), postgres.connect(shop.conninfo) as connection:
        write_bad_rows(connection, shop.topic, [Bad.TOO_LARGE])
        write_backlog(shop)
        failed = until("the task to fail", connector.failure)
        deleted = connection.execute("delete from outbox where length(payload) > %s", [LARGE]).rowcount
        connector.stop()
        connector.start()
        again = until("the task to fail again", connector.failure)
        tap.catch_up()
    missing = len(lost(run.judge("unguarded", variant=UNGUARDED, wrong_way=True)))
    run.claim(
        "no guard: an event too large fails the task; all behind it wait, and deleting its row does not help",
        deleted == 1 and missing == count and "RecordTooLarge" in failed and "RecordTooLarge" in again,
        topics=["I.5/failure-scenarios/publisher-crash", "I.5/debezium-setup/kafka-connect"],
        fact=f"FAILED twice, {missing:,} of {count:,} good events not published",
        variant=UNGUARDED,
        wrong_way=True,
    )


def tolerate(run: Run, count: int) -> tuple[Shop, int]:
    """WRONG: Connect skips what it cannot send, and sends what is no event; returns how much of that."""
    # Without the unknown type: Connect would wait for its topic for a minute (max.block.ms).
    kinds = [kind for kind in Bad if kind != Bad.UNKNOWN_TYPE]
    setting = {"errors.tolerance": "all"}
    with (
        opened(run, "tolerant", count, setting) as (shop, connector, tap),
        postgres.connect(shop.conninfo) as connection,
    ):
        bad = write_bad_rows(connection, shop.topic, kinds)
        write_backlog(shop)
        tap.wait_for(count)
        tap.catch_up()
        failure, kept = connector.failure(), len(parked(connection))
    delivered = [kafka.headers(message)["ce_id"].decode() for message, _ in tap.rejected]
    history = run.judge("tolerant", variant=TOLERANT, wrong_way=True)
    nowhere = set(bad.values()) - set(delivered) - tap.ids
    run.claim(
        "errors.tolerance=all: what is too large is gone, what is no event reaches the consumers, nothing is parked",
        not failure and not lost(history) and kept == 0 and nowhere == {bad[Bad.TOO_LARGE]} and len(delivered) == 3,
        topics=["I.5/debezium-setup/kafka-connect"],
        fact=f"task RUNNING; of {len(bad)} bad rows {len(delivered)} delivered, {kept} parked, {len(nowhere)} nowhere",
        variant=TOLERANT,
        wrong_way=True,
    )
    return shop, len(delivered)


def reach_consumers(run: Run, shop: Shop, rejected: int) -> None:
    """Two consumers read the topic, each started twice; another program's messages are in it, too."""
    producer = kafka.producer(shop.broker)
    for number, value in enumerate(FOREIGN.values()):
        headers = Event(type="t", source="/elsewhere", subject=f"order-{number}").to_kafka().headers
        producer.produce(shop.topic, value, f"order-{number}".encode(), headers=dict(headers))
    producer.flush()
    homes = {way.__name__: run.schema(f"_{way.__name__}") for way in CONSUMERS}
    for home in homes.values():
        with postgres.connect(home) as connection:
            connection.execute(SCHEMA)
    ended: dict[str, list[bool]] = {name: [] for name in homes}
    for turn in (1, 2):
        workers = [start_consumer(run, shop, way, turn, homes[way.__name__]) for way in CONSUMERS]
        for name, worker in zip(homes, workers, strict=True):
            ended[name].append(ends(worker))
    exact = {name: accounts(home) == due(shop) for name, home in homes.items()}
    with postgres.connect(homes["handle_or_keep"]) as connection:
        letters = dead_letters(connection, f"{shop.topic}.handle_or_keep")
    claim_consumers(run, ended, exact, letters, rejected)


def start_consumer(run: Run, shop: Shop, way: Callable[..., None], turn: int, home: str) -> Worker:
    """One that reads the topic from where its group was; `home` is its own database."""
    reading = replace(shop, history=run.history_file(way.__name__))
    return run.worker(f"{way.__name__}-{turn}", consume, reading, "event id, one transaction", None, 1, home, way)


def ends(worker: Worker) -> bool:
    """Whether it ends by an error, and not because it has read everything."""
    try:
        worker.wait()
    except StartFailed:
        return True
    return False


def guard(run: Run, count: int) -> None:
    """RIGHT: bad rows are parked as they are inserted. The cause of one is mended, then all are retried."""
    late = f"{run.name}.late"
    with opened(run, "guarded", 2 * count) as (shop, connector, tap), postgres.connect(shop.conninfo) as connection:
        install(connection, [shop.topic])
        write_backlog(replace(shop, count=count))
        bad = write_bad_rows(connection, shop.topic, unknown=late)
        write_backlog(replace(shop, count=count, seed=run.seed + 1, prefix="later"))
        tap.wait_for(2 * count)
        found = {one.id: one.reason for one in parked(connection)}
        add_routes(connection, [run.topic("late")])
        retry(connection, list(bad.values()))
        mended = until("the mended event", lambda: kafka.read_all(shop.broker, late))
        insert_event(connection, bare := Event("shop.order.viewed", "/shop/orders", "order-1"), late)
        said = until("the event without data", lambda: kafka.read_all(shop.broker, late)[1:])
        tap.catch_up()
        still, tasks = {one.id for one in parked(connection)}, connector.status()["tasks"]
    claim_parked(run, tap, bad, found, [task["state"] for task in tasks])
    claim_bare(run, bare, said)
    run.claim(
        "retried, a parked row passes the guard when its cause is gone, and is parked again when it is not",
        [kafka.headers(message)["ce_id"].decode() for message in mended] == [bad[Bad.UNKNOWN_TYPE]]
        and still == set(bad.values()) - {bad[Bad.UNKNOWN_TYPE]},
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact=f"{len(mended)} published when its topic was there, {len(still)} parked again",
        variant=GUARDED,
    )


def claim_parked(run: Run, tap: Tap, bad: dict[Bad, str], found: dict[str, str], tasks: list[str]) -> None:
    words = {
        Bad.UNKNOWN_TYPE: "there is no route",
        Bad.NOT_JSON: "the payload is not",
        Bad.NUL_BYTE: "0x00",
        Bad.MISSING_FIELDS: "missing: type, source",
        Bad.TOO_LARGE: "too large",
    }
    history = run.judge("guarded", variant=GUARDED)
    explained = sum(words[kind] in found.get(ident, "") for kind, ident in bad.items())
    run.claim(
        "with the guard every good event arrives, every bad row is parked with its reason, and the task runs on",
        len(history.committed) == len(tap.ids) > 0
        and not lost(history) + tap.rejected
        and explained == len(found) == len(Bad)
        and tasks == ["RUNNING"],
        topics=["I.5/debezium-setup/event-routing", "I.5/debezium-setup/kafka-connect"],
        fact=f"{len(tap.ids):,} events arrived, {explained} bad rows parked, task {', '.join(tasks)}",
        variant=GUARDED,
    )


def claim_bare(run: Run, bare: Event, said: list[Message]) -> None:
    events = [Event.from_kafka(kafka.key(one), kafka.value(one), kafka.headers(one)) for one in said]
    headers = [name for one in said for name, value in kafka.header_pairs(one) if not value]
    run.claim(
        "an event without data, number or cause is an event (debezium#919): it passes, and comes without a tombstone "
        "and without an empty header",
        events == [replace(bare, partition_key=bare.subject)] and not headers,
        topics=["I.5/debezium-setup/event-routing"],
        fact=f"{len(events)} read as it was written, {len(headers)} headers without a value",
        variant=GUARDED,
    )


def claim_consumers(
    run: Run, ended: dict[str, list[bool]], exact: dict[str, bool], letters: list[DeadLetter], rejected: int
) -> None:
    run.claim(
        "what is no event, and nobody keeps it (Logprep#640): it ends the consumer at every start, and what is behind "
        "it is never done",
        ended["handle_or_end"] == [True, True] and not exact["handle_or_end"],
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact="ended at both starts, accounts wrong",
        variant="read or end",
        wrong_way=True,
    )
    values = [letter.value for letter in letters]
    run.claim(
        "kept with reason, bytes and headers, whether a Latin-1 byte, nesting, NaN (nab#1007) or no data: the consumer "
        "goes on, every account is right",
        ended["handle_or_keep"] == [False, False]
        and exact["handle_or_keep"]
        and len(letters) == rejected + len(FOREIGN)
        and set(FOREIGN.values()) <= set(values)
        and all(letter.reason and letter.headers for letter in letters),
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact=f"{len(letters)} kept, {rejected} of them from the outbox; every account exact",
        variant="read or keep",
    )


def price_guard(run: Run) -> None:
    """Microseconds that Postgres takes to insert an event of 200 bytes, without and with the guard, by turns."""
    count = run.pick(smoke=500, demo=2_000, full=10_000)
    homes = {UNGUARDED: run.schema("_plain"), GUARDED: run.schema("_priced")}
    took: dict[str, list[float]] = {variant: [] for variant in homes}
    for conninfo in homes.values():
        create(conninfo)
    with postgres.connect(homes[UNGUARDED]) as plain, postgres.connect(homes[GUARDED]) as guarded:
        install(guarded, ["orders"])
        for _ in range(ROUNDS):
            for variant, connection in ((UNGUARDED, plain), (GUARDED, guarded)):
                began = time.perf_counter()
                connection.execute(BACKLOG, {"topic": "orders", "first": 1, "last": count}, prepare=True)
                took[variant].append((time.perf_counter() - began) / count * 1e6)
    for variant, samples in took.items():
        run.figure("insert of an event", samples, "us", variant=variant)


@contextmanager
def opened(
    run: Run, name: str, count: int, settings: dict[str, str] | None = None
) -> Iterator[tuple[Shop, Connector, Tap]]:
    """A shop, a running connector on its outbox, and a consumer of its topic; gone at the end of the block."""
    conninfo, schema = run.schema(f"_{name}"), f"{run.name}_{name}"
    create(conninfo)
    shop = Shop(conninfo, run.endpoints["kafka"], run.topic(name), run.history_file(name), run.seed, count)
    connector = Connector(run.endpoints["connect"], run.endpoints["postgres"], schema, schema, settings=settings)
    recorder = run.recorder(name, "experiment")
    with connector.running(), Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        yield shop, connector, tap


if __name__ == "__main__":
    experiment.main()
