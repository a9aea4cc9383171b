"""The shop: its service and its relay as processes that experiments start, kill and watch (shared.worker)."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import psycopg
from confluent_kafka import KafkaException, Producer
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from outbox import service
from outbox.relay import Relay
from outbox.relay.cursor import CursorRelay
from outbox.relay.holding import PATIENCE
from outbox.relay.message import OutboxRow, text
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher, attempt
from outbox.relay.wal import WalRelay
from outbox.table import create, insert_event, insert_step, pending, steps
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay
from shared import kafka, workload
from shared.event import Event
from shared.faults import Hook, Kill, hook, nowhere
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.run import Run, slug
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.threads import paced
from shared.wait import until
from shared.worker import announce, until_told

RelayClass = type[PollingPublisher] | type[CursorRelay] | type[WalRelay]
# Those that lose nothing and keep the order, each where it is alone.
RELAYS: tuple[RelayClass, ...] = PollingPublisher, SkipLockedRelay, BatchDeleteRelay, CursorRelay, WalRelay


@dataclass(frozen=True)
class Shop:
    """Where a run of the shop happens: database, broker, topic (or aggregate type), history and the seeded events."""

    conninfo: str
    broker: Endpoint
    topic: str
    history: Path
    seed: int
    count: int
    prefix: str = "order"  # what order ids begin with: shops with different prefixes share tables and topic
    rate: float = 0.0  # events per second; 0: as fast as they go
    slot: str = ""  # of the log relay
    refused_every: int = 0  # every so many-th event costs nothing, which the database refuses

    @classmethod
    def open(cls, run: Run, name: str, count: int, partitions: int = 3, schema: str = "", **fields: Any) -> Self:
        """An empty outbox in a schema of its own; topic and history bear the name, and so does the schema."""
        conninfo = run.schema(schema or f"_{slug(name)}")
        create(conninfo)
        topic, history = run.topic(name, partitions), run.history_file(name)
        return cls(conninfo, run.endpoints["kafka"], topic, history, run.seed, count, **fields)

    def events(self, first: int = 0) -> Iterator[Event]:
        """The events from number `first` on (counted from 0), the same in every process."""
        for number, event in enumerate(workload.events(self.seed, self.count, prefix=self.prefix)):
            if number >= first:
                yield self._free(event) if self._refused(number) else event

    def _refused(self, number: int) -> bool:
        return self.refused_every > 0 and number % self.refused_every == self.refused_every - 1

    @staticmethod
    def _free(event: Event) -> Event:
        return replace(event, data={**event.data, "cents": 0})

    def write_backlog(self) -> None:
        """Write all events with the outbox, many in one transaction: for runs that are about the relay."""
        with Recorder(self.history, "service") as recorder, in_transactions(self.conninfo) as connection:
            events = self.events()
            while batch := list(islice(events, 1000)):
                for event in batch:
                    insert_step(connection, event)
                    insert_event(connection, event, self.topic)
                connection.commit()
                for event in batch:
                    recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)

    def a_step(self) -> int:
        """The number of a step somewhere in the middle, drawn by the seed."""
        drawn = random.Random(f"{self.seed} {self.history.stem}")
        return drawn.randrange(self.count // 4, self.count * 3 // 4)

    def attempted(self) -> int:
        """How many steps its services have begun to take."""
        return sum(op.outcome is Outcome.INVOKE for op in History.read(self.history).of(Action.WRITE))

    def waiting(self) -> int:
        """Events that are neither marked as published nor deleted."""
        with connect(self.conninfo) as connection:
            return pending(connection)

    def wait_until_published(self, seconds: float = 60.0) -> None:
        """By a relay that marks or deletes what the broker has."""
        with connect(self.conninfo) as connection:
            until("every event to be marked as published", lambda: pending(connection) == 0, seconds)

    def published(self) -> dict[bytes, bytes | None]:
        """Event id -> payload, as the topic has it."""
        return {kafka.headers(m)["ce_id"]: kafka.value(m) for m in kafka.read_all(self.broker, self.topic)}

    def settle(self, recorder: Recorder) -> None:
        """The final read: which events have their business row. It decides what a killed writer could not know."""
        there = steps(self.conninfo)
        for event in self.events():
            if (event.subject, event.sequence) in there:
                recorder.record(Action.READ, Outcome.OK, event.id, key=event.subject, process="database")
        recorder.record(Action.READ, Outcome.OK, process="database")


def in_transactions(conninfo: str) -> Connection:
    """A session that begins its transactions by itself, as database toolkits expect it."""
    connection = connect(conninfo)
    connection.autocommit = False
    return connection


@contextmanager
def watched(run: Run, shop: Shop, *topics: str) -> Iterator[Tap]:
    """The consumer of the shop's topic (or of these) at work; at the end it has everything. It keeps the history."""
    recorder = run.recorder(shop.history.stem, "experiment")
    with Tap("consumer", shop.broker, topics or (shop.topic,), recorder) as tap:
        yield tap
        tap.catch_up()


def warm_up(shop: Shop, tap: Tap, count: int) -> None:
    """The relay's first events cost it its connections: orders of another prefix, which are not measured."""
    replace(shop, count=count, seed=shop.seed + 1, prefix="warm").write_backlog()
    tap.wait_for(count)


# The service.


def serve(shop: Shop, write: service.Write, first: int = 0, kill: Kill | None = None, process: str = "service") -> None:
    """A process: take the steps from number `first` on, each recorded as it is tried and as it ends."""
    producer = kafka.producer(shop.broker)
    with Recorder(shop.history, process) as recorder, connect(shop.conninfo) as connection:
        at, events = hook(kill, recorder), shop.events(first)
        for event in paced(events, shop.rate) if shop.rate else events:
            recorder.record(Action.WRITE, Outcome.INVOKE, event.id, key=event.subject, seq=event.sequence)
            outcome = _attempt(write, connection, producer, shop.topic, event, at)
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=event.sequence)


def _attempt(
    write: service.Write, connection: Connection, producer: Producer, topic: str, event: Event, at: Hook
) -> Outcome:
    """Refused by the database: certainly not done. Any other error leaves the caller in doubt."""
    try:
        write(connection, producer, topic, event, at)
    except psycopg.IntegrityError:
        return Outcome.FAIL
    except (psycopg.Error, KafkaException):
        return Outcome.UNKNOWN
    return Outcome.OK


def serve_in_session(shop: Shop, first: int = 0, kill: Kill | None = None) -> None:
    """As `serve` with the outbox, by a SQLAlchemy session."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: in_transactions(shop.conninfo))
    with Recorder(shop.history, "service") as recorder, Session(engine) as session:
        at = hook(kill, recorder)
        for event in shop.events(first):
            recorder.record(Action.WRITE, Outcome.INVOKE, event.id, key=event.subject, seq=event.sequence)
            outcome = Outcome.OK
            try:
                service.write_in_session(session, shop.topic, event, at)
            except IntegrityError:
                session.rollback()
                outcome = Outcome.FAIL
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=event.sequence)


# The relay.


class Looked(NamedTuple):
    """What a relay announces when it has looked once for what there is."""

    session: int  # the process id of its session of Postgres'
    at: float  # time.monotonic()


def relay(
    shop: Shop,
    way: RelayClass,
    batch: int = 500,
    interval: float = 0.02,
    kill: Kill | None = None,
    process: str = "relay",
    recorded: bool = True,
) -> None:
    """A process: relay until SIGTERM, or until killed. It announces that it has Looked."""
    stop = until_told()
    with Recorder(shop.history, process) as recorder, connect(shop.conninfo) as connection:
        at = hook(kill, recorder)
        with closing(
            make_relay(shop, way, connection, batch, interval, at, recorder if recorded else None)
        ) as relaying:
            attempt(relaying.step, stop)
            announce(Looked(connection.info.backend_pid, time.monotonic()))
            relaying.run(stop)


@contextmanager
def at_work(relaying: Relay) -> Iterator[None]:
    """The relay at work in a thread of this process, and closed at the end. Raises what it died of."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(relaying.run, stop)
        try:
            yield
        finally:
            stop.set()
            running.result()
            relaying.close()


def publish_all(shop: Shop, way: RelayClass = PollingPublisher, batch: int = 500) -> int:
    """Publish what waits, in this process; returns how many events."""
    with connect(shop.conninfo) as connection, closing(make_relay(shop, way, connection, batch)) as relaying:
        return sum(iter(relaying.step, 0))


def make_relay(
    shop: Shop,
    way: RelayClass,
    connection: Connection,
    batch: int = 500,
    interval: float = 0.05,
    at: Hook = nowhere,
    recorder: Recorder | None = None,
    publisher: Publisher | None = None,
    patience: float = PATIENCE,
) -> Relay:
    """A relay of that class on the shop's outbox. The log relay is on the shop's slot.

    It and the cursor's wait `patience` seconds for one that is at work already. Raises LabError when it stays.
    """
    publisher = publisher or Publisher(shop.broker, on_acknowledged=noted(recorder) if recorder else None)
    if way is CursorRelay:
        return CursorRelay(connection, publisher, batch, interval, at, patience=patience)
    if way is WalRelay:
        return WalRelay(shop.conninfo, connection, publisher, shop.slot, at, patience=patience)
    return cast(type[PollingPublisher], way)(connection, publisher, batch, interval, at)


def noted(recorder: Recorder) -> Callable[[Sequence[OutboxRow]], None]:
    """A publisher's `on_acknowledged` that writes what the broker has into the history."""

    def note(rows: Sequence[OutboxRow]) -> None:
        at, me = now(), recorder.process
        recorder.add(
            *(
                Op(at, me, Action.SEND, Outcome.OK, text(row.id), text(row.aggregate_id), int(row.sequence))
                for row in rows
            )
        )

    return note
