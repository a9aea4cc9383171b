"""The shop's service and its relay as processes that experiments start and kill (shared.worker)."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

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
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.table import insert_event, insert_step, steps
from outbox.wrong import dual_write
from outbox.wrong.deleting import BatchDeleteRelay, SkipLockedRelay
from outbox.wrong.mark_first import MarkFirstPublisher
from shared import kafka, workload
from shared.event import Event
from shared.faults import Hook, Kill, hook, nowhere
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import until_told

WAYS: dict[str, service.Way] = {
    "commit, then publish": dual_write.commit_then_publish,
    "publish, then commit": dual_write.publish_then_commit,
    "outbox": service.write_with_outbox,
}


POLLING: dict[str, type[PollingPublisher]] = {
    "publish, then mark": PollingPublisher,
    "mark, then publish": MarkFirstPublisher,
    "row by row": SkipLockedRelay,
    "batch delete": BatchDeleteRelay,
}
RelayClass = type[PollingPublisher] | type[CursorRelay] | type[WalRelay]
RELAYS: dict[str, RelayClass] = {**POLLING, "cursor": CursorRelay, "log": WalRelay}


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


def serve(shop: Shop, way: str, first: int = 0, kill: Kill | None = None, name: str = "service") -> None:
    """Take the steps from number `first` on, each recorded as it is tried and as it ends."""
    producer = kafka.producer(shop.broker)
    with Recorder(shop.history, name) as recorder, connect(shop.conninfo) as connection:
        at = hook(kill, recorder)
        began = time.monotonic()
        for number, event in enumerate(shop.events(first)):
            if shop.rate:
                time.sleep(max(0.0, began + number / shop.rate - time.monotonic()))
            recorder.record(Action.WRITE, Outcome.INVOKE, event.id, key=event.subject, seq=event.sequence)
            outcome = _attempt(way, connection, producer, shop.topic, event, at)
            recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=event.sequence)


def _attempt(way: str, connection: Connection, producer: Producer, topic: str, event: Event, at: Hook) -> Outcome:
    """Refused by the database: certainly not done. Any other error leaves the caller in doubt."""
    try:
        WAYS[way](connection, producer, topic, event, at)
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


def in_transactions(conninfo: str) -> Connection:
    """A session that begins its transactions by itself, as database toolkits expect it."""
    connection = connect(conninfo)
    connection.autocommit = False
    return connection


def write_backlog(shop: Shop) -> None:
    """Write all events with the outbox, many in one transaction: for runs that are about the relay."""
    with Recorder(shop.history, "service") as recorder, in_transactions(shop.conninfo) as connection:
        events = shop.events()
        while batch := list(islice(events, 1000)):
            for event in batch:
                insert_step(connection, event)
                insert_event(connection, event, shop.topic)
            connection.commit()
            for event in batch:
                recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)


def relay(
    shop: Shop,
    kind: str | RelayClass,
    batch: int,
    interval: float,
    kill: Kill | None = None,
    name: str = "relay",
    recorded: bool = True,
    ready: Path | None = None,
) -> None:
    """Relay until SIGTERM, or until killed. `ready` appears as in `run_announced`."""
    stop = until_told()
    with Recorder(shop.history, name) as recorder, connect(shop.conninfo) as connection:
        at = hook(kill, recorder)
        with closing(
            make_relay(shop, kind, connection, batch, interval, at, recorder if recorded else None)
        ) as relaying:
            run_announced(relaying, connection, stop, ready)


def run_announced(relaying: Relay, connection: Connection, stop: threading.Event, ready: Path | None) -> None:
    """Run a relay. When it has looked once for what there is, `ready` appears with the process id of its session."""
    if ready:
        relaying.step()
        ready.write_text(str(connection.info.backend_pid))
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


def announced(ready: Path) -> int:
    """The process id of the session of a relay that has looked for what there is, as soon as it has."""
    return int(until("the relay to look for news", lambda: ready.read_text() if ready.exists() else ""))


def make_relay(
    shop: Shop,
    kind: str | RelayClass,
    connection: Connection,
    batch: int = 500,
    interval: float = 0.05,
    at: Hook = nowhere,
    recorder: Recorder | None = None,
    publisher: Publisher | None = None,
    patience: float = PATIENCE,
) -> Relay:
    """A relay on the shop's outbox: a class, or its name in RELAYS. The log relay is on the shop's slot.

    It and the cursor's wait `patience` seconds for one that is at work already. Raises LabError when it stays.
    """
    publisher = publisher or Publisher(shop.broker, on_acknowledged=noted(recorder) if recorder else None)
    way = RELAYS[kind] if isinstance(kind, str) else kind
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


def settle(shop: Shop, recorder: Recorder) -> None:
    """The final read: which events have their business row. It decides what an interrupted writer could not know."""
    there = steps(shop.conninfo)
    for event in shop.events():
        if (event.subject, event.sequence) in there:
            recorder.record(Action.READ, Outcome.OK, event.id, key=event.subject, process="database")
    recorder.record(Action.READ, Outcome.OK, process="database")
