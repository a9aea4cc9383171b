"""Relay, database, broker and Connect are killed by -9 under load, and a broker is paused: what is lost, what helps?

Service, relay and consumer keep trying, as real ones do. Every failure has a written recovery procedure, which the
experiment executes step by step; every one ends with the same check of the ledger: each committed event once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from outbox import inbox
from outbox.relay.debezium import Connector
from outbox.stage import restoring
from outbox.stage.measuring import again_after, recovery
from outbox.stage.processes import Shop, settle
from outbox.stage.supervised import LEDGER, Balance, balance, consume_through, relay_through, serve_through
from outbox.table import create

from shared import kafka, postgres
from shared.checkers import aborted_read, duplicate_delivery, duplicate_effect, lost, phantom
from shared.experiment import Experiment, Run
from shared.faults import Faults, Victim
from shared.history import History, now
from shared.servers.handle import Handle
from shared.wait import until

experiment = Experiment(
    title="Failures and recovery",
    topics=(
        "I.5/failure-scenarios/publisher-crash",
        "I.5/failure-scenarios/database-failure",
        "I.5/failure-scenarios/message-broker-failure",
        "I.5/failure-scenarios/recovery-procedures",
    ),
)
RATE = 100.0  # events per second
PAUSE = 3.0  # seconds of a paused broker, longer than its session with its controller


@dataclass(frozen=True)
class Failure:
    """A failure and how to recover from it: what an operator sees, does, and waits for."""

    name: str
    topic: str
    seen: str  # the alarm that tells of it
    done: str  # what is done about it
    note: str = "SIGKILL"  # of the fault in the history


FAILURES = (
    Failure("relay", "publisher-crash", "the backlog grows", "start the relay: it goes on from its checkpoint"),
    Failure(
        "postgres",
        "database-failure",
        "writes fail; the relay logs lost sessions",
        "start Postgres: it recovers from its log, and all reconnect",
    ),
    Failure(
        "kafka",
        "message-broker-failure",
        "the backlog grows; the relay's flush does not return",
        "start Kafka: it recovers its segments, the producer sends again what was not acknowledged",
    ),
    Failure(
        "kafka, paused",
        "message-broker-failure",
        "the backlog grows; connections are open and nothing answers",
        "let Kafka go on; nothing else: the relay waits with what it sent",
        "SIGSTOP",
    ),
    Failure(
        "connect",
        "publisher-crash",
        "the slot's lag grows; Connect does not answer",
        "start Connect: the connector goes on from its last flushed offset",
    ),
)


@dataclass(frozen=True)
class Stage:
    """The servers of the run, and the shop on them."""

    database: Handle
    broker: Handle
    shop: Shop
    connect: Handle | None = None


@dataclass(frozen=True)
class Recovered:
    """What a failure and its procedure left."""

    history: History
    ledger: Balance
    gap: float | None  # seconds from the harm to the next new event


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=300, demo=600, full=2_000)
    run.parameters.update({"events per failure": count, "rate per s": RATE})
    database, broker = run.own("postgres"), run.own("kafka")
    found: dict[str, Recovered] = {}
    for failure in run.pick(FAILURES[:4], FAILURES, FAILURES):
        stage = set_up(run, database, broker, failure, count)
        found[failure.name] = recovered = fail_and_recover(run, stage, failure)
        claim_recovered(run, failure, recovered)
    run.claim(
        "every failure has a procedure, which was executed and ended with each event in the ledger once",
        len(found) >= 4 and all(one.history.faults and one.ledger.exact for one in found.values()),
        topics=["I.5/failure-scenarios/recovery-procedures"],
        fact="; ".join(f"{name}: {one.ledger.once:,} of {one.ledger.events:,}" for name, one in found.items()),
    )
    lose_the_cluster(run, database, broker, run.pick(smoke=20, demo=200, full=2_000))


def lose_the_cluster(run: Run, database: Handle, broker: Handle, count: int) -> None:
    """The last failure: the database's cluster is gone, a dump is left."""
    kafka.create_topics(broker.endpoint, [topic := f"{run.name}.moved"])
    shop = Shop("", broker.endpoint, topic, run.history_file("moved"), run.seed, count)
    with run.step("the cluster is gone: its dump is restored into a fresh one, by pg_dump and psql"):
        moved = restoring.move(database.endpoint, run.own("postgres").endpoint, shop)
    restoring.claim(
        run, moved, [f"I.5/failure-scenarios/{name}" for name in ("database-failure", "recovery-procedures")]
    )


def set_up(run: Run, database: Handle, broker: Handle, failure: Failure, count: int) -> Stage:
    slug = failure.name.replace(", ", "_")
    schema = f"{run.name}_{slug}"
    conninfo = postgres.create_schema(database.endpoint, schema)
    create(conninfo)
    with postgres.connect(conninfo) as connection:
        connection.execute(LEDGER)
        connection.execute(inbox.SCHEMA)
    kafka.create_topics(broker.endpoint, [topic := f"{run.name}.{slug}"])
    shop = Shop(conninfo, broker.endpoint, topic, run.history_file(slug), run.seed, count, rate=RATE)
    connect = run.own("connect", {"kafka": broker.endpoint}) if failure.name == "connect" else None
    return Stage(database, broker, shop, connect)


def fail_and_recover(run: Run, stage: Stage, failure: Failure) -> Recovered:
    """Load, failure after a third of the events, the written procedure, and the rest of the load."""
    shop = stage.shop
    record = run.recorder(shop.history.stem, "experiment")
    relaying, stop_relaying = start_relay(run, stage)
    victims: dict[str, Victim] = {"relay": relaying, "connect": relaying, "postgres": stage.database}
    consumer = run.worker("consumer", consume_through, shop, f"{shop.topic}.group")
    with run.step(f"{failure.name}: load"):
        # One event ahead: a consumer takes seconds to join its group, and the load is to meet all at work.
        run.worker("service", serve_through, replace(shop, count=1, prefix="first")).wait()
        until("the first event in the ledger", lambda: booked(shop) == 1, 60)
        service = run.worker("service", serve_through, shop, go_on := run.folder / f"{shop.history.stem}.failed")
        until("a third of the events in the ledger", lambda: booked(shop) >= shop.count // 3, 60)
    done = execute(run, failure, victims.get(failure.name, stage.broker), Faults(record), shop, go_on)
    with run.step(f"{failure.name}: 3. wait until the ledger has every committed event"):
        service.wait(120)
        until("every committed event in the ledger", lambda: booked(shop) >= committed(shop), 60)
    stop_relaying()
    consumer.stop()
    settle(shop, record)
    history = run.judge(shop.history.stem, variant=failure.name, fault=failure.note)
    return Recovered(history, balance(shop.conninfo), recovery(history, done))


def execute(run: Run, failure: Failure, victim: Victim, faults: Faults, shop: Shop, go_on: Path) -> int:
    """The failure, and the first two steps of its procedure; returns when the harm was done.

    The service has half of its load yet to write.
    """
    harm = faults.paused if failure.note == "SIGSTOP" else faults.down
    with harm(victim), run.step(f"{failure.name}: 1. seen: {failure.seen}"):
        done = now()
        go_on.touch()
        if failure.name == "postgres":
            until("the database to be gone", lambda: not answers(shop), 10)
        else:
            behind = min(RATE * PAUSE / 2, shop.count // 3)  # half is yet to come when the failure begins
            until("the backlog to grow", lambda: committed(shop) - booked(shop) > behind, 30)
    with run.step(f"{failure.name}: 2. {failure.done}"):
        before = booked(shop)
        until("new events in the ledger", lambda: booked(shop) > before or booked(shop) == committed(shop), 60)
    return done


def start_relay(run: Run, stage: Stage) -> tuple[Victim, Callable[[], object]]:
    """The relay of this failure, as (what to kill, how to stop it): the cursor, or Debezium in a Connect of its own."""
    if stage.connect is None:
        worker = run.worker("relay", relay_through, stage.shop, "cursor")
        return worker, worker.stop
    name = stage.shop.topic.replace(".", "_")
    connector = Connector(stage.connect.endpoint, stage.database.endpoint, name, name)
    connector.put()
    return stage.connect, connector.delete


def booked(shop: Shop) -> int:
    """Different events in the ledger."""
    return count(shop, "select count(distinct event_id) from ledger")


def committed(shop: Shop) -> int:
    return count(shop, "select count(*) from order_steps")


def count(shop: Shop, query: str) -> int:
    with postgres.connect(shop.conninfo) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def answers(shop: Shop) -> bool:
    try:
        return committed(shop) >= 0
    except psycopg.OperationalError:
        return False


def claim_recovered(run: Run, failure: Failure, recovered: Recovered) -> None:
    history, ledger = recovered.history, recovered.ledger
    wrong = lost(history) + phantom(history) + aborted_read(history) + duplicate_effect(history)
    if recovered.gap is not None:
        run.figure("failure to next new event", recovered.gap, "s", variant=failure.name)
    run.figure("delivered twice", len(duplicate_delivery(history)), "events", variant=failure.name)
    run.claim(
        f"{failure.name}: nothing acknowledged is lost, nothing takes effect twice",
        not wrong and ledger.exact and recovered.gap is not None,
        topics=[f"I.5/failure-scenarios/{failure.topic}"],
        fact=f"{ledger.once:,} of {ledger.events:,} events booked once, {again_after(recovered.gap)}",
        variant=failure.name,
    )


if __name__ == "__main__":
    experiment.main()
