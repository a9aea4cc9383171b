"""Rows that are not valid events, written among good ones: what does Debezium do with them, and who finds out?

The bad rows are too large for the broker, of an unknown aggregate type, not valid JSON though they say so, with a NUL
byte, or with missing fields. Debezium runs without a guard, with Connect told to tolerate errors, and with the guard
that parks bad rows as they are inserted. Then bad messages reach the topic, from here or from another program: what do
its consumers do with them?

Where wrong and right differ: `fail_for_good` does nothing, `tolerate` has the setting `errors.tolerance`, and `guard`
calls `install` (outbox/guard.py). Of the consumers, `handle_or_keep` (outbox/consumer.py) has an `except
deadletters.UNUSABLE`, and `handle_or_end` (outbox/wrong/consuming.py) has none.
"""

from dataclasses import replace

from confluent_kafka import Message
from outbox.consumer import handle_or_keep
from outbox.guard import add_routes, install
from outbox.parking import parked, retry
from outbox.stage import badrows
from outbox.stage.badrows import Bad, Opened
from outbox.wrong.consuming import handle_or_end

from shared import kafka, postgres
from shared.checkers import lost
from shared.event import Event
from shared.experiment import Experiment, Run
from shared.wait import until

CONNECT = "I.5/debezium-setup/kafka-connect"
ROUTING = "I.5/debezium-setup/event-routing"
CRASH = "I.5/failure-scenarios/publisher-crash"
RECOVERY = "I.5/failure-scenarios/recovery-procedures"
experiment = Experiment(
    title="Bad rows under Debezium",
    servers=("postgres", "kafka", "connect"),
    topics=(CONNECT, ROUTING, CRASH, RECOVERY),
)
UNGUARDED, TOLERANT, GUARDED = "no guard", "errors.tolerance=all", "guard.sql"
LARGE = 1_000_000  # bytes, and some more: what Connect's producer takes


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=100, demo=500, full=5_000)
    run.parameters.update({"good events per case": count})
    with run.step(UNGUARDED):
        fail_for_good(run, count)
    with run.step(TOLERANT):
        it, rejected = tolerate(run, count)
    with run.step("its consumers"):
        reach_consumers(run, it, rejected)
    with run.step(GUARDED):
        guard(run, count)
    with run.step("what the guard costs an insert"):
        price_guard(run)


def fail_for_good(run: Run, count: int) -> None:
    """WRONG: nobody looks at a row before the broker does. Deleted from the table, it is still in the log."""
    about = run.about(UNGUARDED, wrong_way=True, topics=[CRASH, CONNECT])
    with badrows.opened(run, "unguarded", count) as it, postgres.connect(it.shop.conninfo) as connection:
        shop, connector = it.shop, it.connector
        badrows.write_bad_rows(connection, shop.topic, [Bad.TOO_LARGE])
        shop.write_backlog()
        failed = until("the task to fail", connector.failure)
        deleted = connection.execute("delete from outbox where length(payload) > %s", [LARGE]).rowcount
        connector.stop()
        connector.start()
        again = until("the task to fail again", connector.failure)
    missing = len(lost(about.judge("unguarded")))
    about.claim(
        "no guard: an event too large fails the task; all behind it wait, and deleting its row does not help",
        deleted == 1 and missing == count and "RecordTooLarge" in failed and "RecordTooLarge" in again,
        fact=f"FAILED twice, {missing:,} of {count:,} good events not published",
    )


def tolerate(run: Run, count: int) -> tuple[Opened, int]:
    """WRONG: Connect skips what it cannot send, and sends what is no event; returns how much of that."""
    # Without the unknown type: Connect would wait for its topic for a minute (max.block.ms).
    kinds = [kind for kind in Bad if kind != Bad.UNKNOWN_TYPE]
    setting = {"errors.tolerance": "all"}
    about = run.about(TOLERANT, wrong_way=True, topics=[CONNECT])
    with badrows.opened(run, "tolerant", count, setting) as it, postgres.connect(it.shop.conninfo) as connection:
        shop, tap = it.shop, it.tap
        bad = badrows.write_bad_rows(connection, shop.topic, kinds)
        shop.write_backlog()
        tap.wait_for(count)
        tap.catch_up()
        failure, kept = it.connector.failure(), len(parked(connection))
    delivered = [kafka.headers(message)["ce_id"].decode() for message, _ in tap.rejected]
    history = about.judge("tolerant")
    nowhere = set(bad.values()) - set(delivered) - tap.ids
    about.claim(
        "errors.tolerance=all: what is too large is gone, what is no event reaches the consumers, nothing is parked",
        not failure and not lost(history) and kept == 0 and nowhere == {bad[Bad.TOO_LARGE]} and len(delivered) == 3,
        fact=f"task RUNNING; of {len(bad)} bad rows {len(delivered)} delivered, {kept} parked, {len(nowhere)} nowhere",
    )
    return it, len(delivered)


def reach_consumers(run: Run, it: Opened, rejected: int) -> None:
    """Two consumers read the topic, each started twice; another program's messages are in it, too."""
    badrows.write_foreign(it.shop)
    ending, keeping = badrows.meet(run, it.shop, [handle_or_end, handle_or_keep])
    claim_consumers(run, ending, keeping, rejected)


def guard(run: Run, count: int) -> None:
    """RIGHT: bad rows are parked as they are inserted. The cause of one is mended, then all are retried."""
    late = f"{run.name}.late"
    with badrows.opened(run, "guarded", 2 * count) as it, postgres.connect(it.shop.conninfo) as connection:
        shop, tap = it.shop, it.tap
        install(connection, [shop.topic])
        replace(shop, count=count).write_backlog()
        bad = badrows.write_bad_rows(connection, shop.topic, unknown=late)
        replace(shop, count=count, seed=run.seed + 1, prefix="later").write_backlog()
        tap.wait_for(2 * count)
        found = {one.id: one.reason for one in parked(connection)}
        add_routes(connection, [run.topic("late")])
        retry(connection, list(bad.values()))
        mended = until("the mended event", lambda: kafka.read_all(shop.broker, late))
        bare = badrows.write_bare(connection, late)
        said = until("the event without data", lambda: kafka.read_all(shop.broker, late)[1:])
        still, tasks = {one.id for one in parked(connection)}, it.connector.status()["tasks"]
    claim_parked(run, it, bad, found, [task["state"] for task in tasks])
    claim_bare(run, bare, said)
    run.about(GUARDED, topics=[RECOVERY]).claim(
        "retried, a parked row passes the guard when its cause is gone, and is parked again when it is not",
        [kafka.headers(message)["ce_id"].decode() for message in mended] == [bad[Bad.UNKNOWN_TYPE]]
        and still == set(bad.values()) - {bad[Bad.UNKNOWN_TYPE]},
        fact=f"{len(mended)} published when its topic was there, {len(still)} parked again",
    )


def claim_parked(run: Run, it: Opened, bad: dict[Bad, str], found: dict[str, str], tasks: list[str]) -> None:
    words = {
        Bad.UNKNOWN_TYPE: "there is no route",
        Bad.NOT_JSON: "the payload is not",
        Bad.NUL_BYTE: "0x00",
        Bad.MISSING_FIELDS: "missing: type, source",
        Bad.TOO_LARGE: "too large",
    }
    about = run.about(GUARDED, topics=[ROUTING, CONNECT])
    history = about.judge("guarded")
    explained = sum(words[kind] in found.get(ident, "") for kind, ident in bad.items())
    about.claim(
        "with the guard every good event arrives, every bad row is parked with its reason, and the task runs on",
        len(history.committed) == len(it.tap.ids) > 0
        and not lost(history) + it.tap.rejected
        and explained == len(found) == len(Bad)
        and tasks == ["RUNNING"],
        fact=f"{len(it.tap.ids):,} events arrived, {explained} bad rows parked, task {', '.join(tasks)}",
    )


def claim_bare(run: Run, bare: Event, said: list[Message]) -> None:
    events = [Event.from_kafka(kafka.key(one), kafka.value(one), kafka.headers(one)) for one in said]
    headers = [name for one in said for name, value in kafka.header_pairs(one) if not value]
    run.about(GUARDED, topics=[ROUTING]).claim(
        "an event without data, number or cause is an event (debezium#919): it passes, and comes without a tombstone "
        "and without an empty header",
        events == [replace(bare, partition_key=bare.subject)] and not headers,
        fact=f"{len(events)} read as it was written, {len(headers)} headers without a value",
    )


def claim_consumers(run: Run, ending: badrows.Met, keeping: badrows.Met, rejected: int) -> None:
    run.about("read or end", wrong_way=True, topics=[RECOVERY]).claim(
        "a message that is not an event, and is not set aside (Logprep#640), crashes the consumer at every start; "
        "nothing behind it is handled",
        ending.ended == [True, True] and not ending.exact,
        fact="ended at both starts, accounts wrong",
        source="fkie-cad/Logprep#640",
    )
    letters = keeping.letters
    run.about("read or keep", topics=[RECOVERY]).claim(
        "kept with reason, bytes and headers, whether a Latin-1 byte, nesting, NaN (nab#1007) or no data: the consumer "
        "goes on, every account is right",
        keeping.ended == [False, False]
        and keeping.exact
        and len(letters) == rejected + len(badrows.FOREIGN)
        and set(badrows.FOREIGN.values()) <= {letter.value for letter in letters}
        and all(letter.reason and letter.headers for letter in letters),
        fact=f"{len(letters)} kept, {rejected} of them from the outbox; every account exact",
    )


def price_guard(run: Run) -> None:
    took = badrows.time_inserts(run, run.pick(smoke=500, demo=2_000, full=10_000))
    for variant, samples in zip((UNGUARDED, GUARDED), took, strict=True):
        run.figure("insert of an event", samples, "us", variant=variant)


if __name__ == "__main__":
    experiment.main()
