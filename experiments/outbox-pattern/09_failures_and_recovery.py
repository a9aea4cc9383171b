"""Relay, database, broker and Connect are killed (kill -9) under load, a broker is paused: what is lost, what helps?

Service, relay and consumer keep trying, as real ones do: the relay by `keep_running` (relay/running.py), the consumer
by `once` (inbox.py). Every failure has a written recovery procedure, which the experiment executes step by step. Each
ends with the same check: the consumer's ledger has each committed event once. The last failure is the loss of the
cluster: a dump is restored into a fresh one. There, the wrong way of reading compares with the new cluster's
transaction ids as they are (BARE, stage/failures.py), the right way with the numbers that `lab outbox adopt` makes of
them (shared/home.sql).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.stage import failures, measures
from outbox.stage.failures import Failing
from outbox.stage.shop import Shop

from shared import checkers, kafka
from shared.experiment import Experiment, Run
from shared.faults import Faults, Victim
from shared.history import History, now
from shared.servers.handle import Handle
from shared.wait import until

RELAY, DATABASE = "I.5/failure-scenarios/publisher-crash", "I.5/failure-scenarios/database-failure"
BROKER, PROCEDURES = "I.5/failure-scenarios/message-broker-failure", "I.5/failure-scenarios/recovery-procedures"
experiment = Experiment(
    title="Failures and recovery",
    topics=(RELAY, DATABASE, BROKER, PROCEDURES),
)
RATE = 100.0  # events per second
PAUSE = 3.0  # seconds of a paused broker, longer than its session with its controller


@dataclass(frozen=True)
class Failure:
    """A failure and how to recover from it: what an operator sees, does, and waits for."""

    name: str
    topic: str
    victim: Callable[[Failing], Victim]
    seen: str  # the alarm that tells of it
    done: str  # what is done about it
    way: type[CursorRelay | Connector] = CursorRelay  # who relays
    harm: Callable[[Faults, Victim], AbstractContextManager[None]] = Faults.down
    note: str = "SIGKILL"  # of the fault in the history


FAILURES = (
    Failure(
        "relay",
        RELAY,
        lambda it: it.relaying,
        "the backlog grows",
        "start the relay: it goes on from its checkpoint",
    ),
    Failure(
        "postgres",
        DATABASE,
        lambda it: it.database,
        "writes fail; the relay logs lost sessions",
        "start Postgres: it recovers from its log, and all reconnect",
    ),
    Failure(
        "kafka",
        BROKER,
        lambda it: it.broker,
        "the backlog grows; the relay's flush does not return",
        "start Kafka: it recovers its segments, the producer sends again what was not acknowledged",
    ),
    Failure(
        "kafka, paused",
        BROKER,
        lambda it: it.broker,
        "the backlog grows; connections are open and nothing answers",
        "let Kafka go on; nothing else: the relay waits with what it sent",
        harm=Faults.paused,
        note="SIGSTOP",
    ),
    Failure(
        "connect",
        RELAY,
        lambda it: it.relaying,
        "the slot's lag grows; Connect does not answer",
        "start Connect: the connector goes on from its last flushed offset",
        way=Connector,
    ),
)


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=300, demo=600, full=2_000)
    run.parameters.update({"events per failure": count, "rate per s": RATE})
    database, broker = run.own("postgres"), run.own("kafka")
    ledgers = {}
    for failure in run.pick(FAILURES[:4], FAILURES, FAILURES):
        with failures.opened(run, database, broker, failure.name, count, RATE, failure.way) as it:
            done = fail_and_recover(it, failure)
        ledgers[failure.name] = claim_recovered(run, failure, it.shop, done)
    run.claim(
        "every failure has a procedure, which was executed and ended with each event in the ledger once",
        len(ledgers) >= 4 and all(ledger.exact for ledger in ledgers.values()),
        topics=[PROCEDURES],
        fact="; ".join(f"{name}: {ledger.once:,} of {ledger.events:,}" for name, ledger in ledgers.items()),
    )
    lose_the_cluster(run, database, broker, run.pick(smoke=20, demo=200, full=2_000))


def fail_and_recover(it: Failing, failure: Failure) -> int:
    """Load, failure after a third of the events, its procedure, and the rest of the load; returns when it was done."""
    run, shop, go_on = it.run, it.shop, it.run.folder / f"{it.shop.history.stem}.failed"
    recorder = run.recorder(shop.history.stem, "experiment")
    with it.consumed():
        with run.step(f"{failure.name}: load"):
            service = run.worker("service", failures.serve_through, shop, go_on)
            until("a third of the events in the ledger", lambda: it.booked() >= shop.count // 3)
        done = execute(it, failure, Faults(recorder), go_on)
        with run.step(f"{failure.name}: 3. wait until the ledger has every committed event"):
            service.wait(120)
            until("every committed event in the ledger", lambda: it.booked() >= it.committed())
    shop.settle(recorder)
    return done


def execute(it: Failing, failure: Failure, faults: Faults, go_on: Path) -> int:
    """The failure, and the first two steps of its procedure; returns when the harm was done.

    The service has half of its load yet to write.
    """
    victim = failure.victim(it)
    with failure.harm(faults, victim), it.run.step(f"{failure.name}: 1. seen: {failure.seen}"):
        done = now()
        go_on.touch()
        if victim is it.database:
            until("the database to be gone", lambda: not it.answers(), 10)
        else:
            behind = min(RATE * PAUSE / 2, it.shop.count // 3)  # half is yet to come when the failure begins
            until("the backlog to grow", lambda: it.committed() - it.booked() > behind, 30)
    with it.run.step(f"{failure.name}: 2. {failure.done}"):
        before = it.booked()
        until("new events in the ledger", lambda: it.booked() > before or it.booked() == it.committed())
    return done


def claim_recovered(run: Run, failure: Failure, shop: Shop, done: int) -> failures.Balance:
    about = run.about(failure.name, topics=[failure.topic])
    history, ledger = about.judge(shop.history.stem, failure.note), failures.balance(shop.conninfo)
    gap = measures.recovery(history, done)
    if gap is not None:
        about.figure("failure to next new event", gap, "s")
    about.figure("delivered twice", len(checkers.duplicate_delivery(history)), "events")
    about.claim(
        f"{failure.name}: nothing acknowledged is lost, nothing takes effect twice",
        not broken_in(history) and ledger.exact and gap is not None,
        fact=f"{ledger.once:,} of {ledger.events:,} events booked once, {measures.again_after(gap)}",
    )
    return ledger


def broken_in(history: History) -> list[checkers.Anomaly]:
    missing = checkers.lost(history) + checkers.phantom(history) + checkers.aborted_read(history)
    return missing + checkers.duplicate_effect(history)


def lose_the_cluster(run: Run, database: Handle, broker: Handle, count: int) -> None:
    """The last failure: the database's cluster is gone, a dump is left."""
    kafka.create_topics(broker.endpoint, [topic := f"{run.name}.moved"])
    shop = Shop("", broker.endpoint, topic, run.history_file("moved"), run.seed, count)
    with run.step("the cluster is gone: its dump is restored into a fresh one, by pg_dump and psql"):
        moved = failures.move(database.endpoint, run.own("postgres").endpoint, shop)
    topics, pending = [DATABASE, PROCEDURES], len(moved.pending)
    run.claim(
        "restored into a fresh cluster, whose transaction ids are lower: until somebody adopts the outbox, the relay "
        "refuses and names the command",
        "run `lab outbox adopt` first" in moved.refusal,
        topics=topics,
        fact=moved.refusal,
    )
    run.claim(
        "adopted, the relay goes on from its checkpoint: what was pending is published, then the new, nothing twice",
        moved.read[-len(moved.pending + moved.written) :] == moved.pending + moved.written
        and sorted(moved.published) == sorted(moved.read),
        topics=topics,
        fact=f"{pending:,} pending and {len(moved.written)} new of {len(moved.read):,} events published",
    )
    run.about("ids of another cluster", wrong_way=True, topics=topics).claim(
        "read with the old cluster's transaction ids unadjusted: the rows are in the table, and no reader gets one",
        not moved.bare and pending > 0,
        fact=f"{len(moved.bare)} of {pending:,} pending events",
        source="sliceworkz/eventstore#143",
    )


if __name__ == "__main__":
    experiment.main()
