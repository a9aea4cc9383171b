"""Service, relay and consumer as processes that outlive their servers: what fails is tried again."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import psycopg
from confluent_kafka import KafkaException, Message
from psycopg.conninfo import make_conninfo

from outbox import deadletters, inbox
from outbox.service import write_with_outbox
from outbox.stage.processes import Shop, make_relay
from shared import codec, kafka
from shared.errors import LabError
from shared.event import Event
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect

AGAIN = 0.1  # seconds before the next attempt at a server that was away
PATIENCE = 5  # seconds after which a connection attempt, or a statement that nobody answers, counts as failed
AWAY = psycopg.OperationalError, psycopg.InterfaceError, KafkaException, LabError

# Each event against its lines: the cursor and Debezium leave every row in the outbox.
BALANCE = """
select count(*) filter (where lines = 1 and id is not null), count(*) filter (where id is not null),
       coalesce(sum(lines - 1) filter (where lines > 1), 0), count(*) filter (where lines is null),
       count(*) filter (where id is null)
from outbox full join (select event_id, count(*) as lines from ledger group by event_id) as booked on id = event_id
"""
# No unique key on purpose: an effect that was had twice is there twice, and is seen.
LEDGER = f"""
create table ledger (event_id uuid not null, order_id text not null, cents bigint not null);
{deadletters.SCHEMA}
"""


@dataclass(frozen=True)
class Balance:
    """The ledger against the committed events."""

    once: int  # events booked once
    events: int  # all that are committed
    twice: int  # lines too many
    missing: int  # events without a line
    strange: int  # booked, and never committed

    @property
    def exact(self) -> bool:
        """Every committed event once, and nothing else; an empty ledger proves nothing."""
        return self.once == self.events > 0 and not self.twice + self.missing + self.strange


def balance(conninfo: str) -> Balance:
    """The ledger as it is."""
    with connect(conninfo) as connection:
        return Balance(*map(int, connection.execute(BALANCE).fetchone() or ()))


def serve_through(shop: Shop, go_on: Path | None = None) -> None:
    """Take every step once. Where the database goes away, the outcome is unknown, and the next step is the next one.

    With `go_on`, the second half is not taken before that file is there: so much is certainly still to come until then.
    """
    with Recorder(shop.history, "service") as recorder:
        events, began = enumerate(shop.events()), time.monotonic()

        def work() -> None:
            with connect(_impatient(shop.conninfo)) as connection:
                for number, event in events:
                    while go_on and number >= shop.count // 2 and not go_on.exists():
                        time.sleep(0.02)
                    time.sleep(max(0.0, began + number / shop.rate - time.monotonic()))
                    _write(recorder, connection, shop.topic, event)

        until_done(work, threading.Event())


def relay_through(shop: Shop, kind: str) -> None:
    """Relay until SIGTERM. After any failure a new relay goes on from what was noted."""
    stop = _on_sigterm()
    with Recorder(shop.history, "relay") as recorder:

        def work() -> None:
            with (
                connect(shop.conninfo) as connection,
                closing(make_relay(shop, kind, connection, 200, 0.02, recorder=recorder)) as relaying,
            ):
                relaying.run(stop)

        until_done(work, stop)


def consume_through(shop: Shop, group: str) -> None:
    """Book every event into the ledger, once by the inbox, until SIGTERM. Offsets are committed after the effect."""
    stop = _on_sigterm()
    with (
        Recorder(shop.history, "consumer") as recorder,
        kafka.consumer(shop.broker, [shop.topic], group) as consumer,
        closing(Sessions(_impatient(shop.conninfo))) as sessions,
    ):
        while not stop.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error():
                continue
            try:
                event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
                _note(recorder, Action.DELIVER, event, shop.topic, message.partition() or 0, message.offset() or 0)
                codec.convert(event.data, Line)  # what cannot be booked would be tried for ever
                # Tried until it is done: going on would commit an offset past an event without effect.
                until_done(partial(_book, recorder, sessions, event), stop)
            except deadletters.UNUSABLE as error:
                until_done(partial(_keep, sessions, group, message, error), stop)
            until_done(partial(consumer.commit, message, asynchronous=False), stop)


class Sessions:
    """A session that is made again when it was lost."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._session: Connection | None = None

    def get(self) -> Connection:
        if self._session is None or self._session.closed:
            self._session = connect(self.conninfo)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def until_done(work: Callable[[], object], stop: threading.Event) -> None:
    """Do it; where a server is away, do it again after a moment."""
    while not stop.is_set():
        try:
            work()
            return
        except AWAY as error:
            print(f"{time.monotonic_ns()} again after {type(error).__name__}: {error}")
            stop.wait(AGAIN)


class Line(msgspec.Struct):
    """What the ledger has to know of an event's data."""

    cents: int


def book(connection: Connection, event: Event) -> None:
    """The effect: one line in the ledger. Raises NotReadable, psycopg.DataError: see `deadletters`."""
    line = codec.convert(event.data, Line)
    connection.execute("insert into ledger values (%s, %s, %s)", [event.id, event.subject, line.cents])


def _write(recorder: Recorder, connection: Connection, topic: str, event: Event) -> None:
    recorder.record(Action.WRITE, Outcome.INVOKE, event.id, key=event.subject, seq=event.sequence)
    outcome = Outcome.UNKNOWN
    try:
        write_with_outbox(connection, None, topic, event)
        outcome = Outcome.OK
    finally:
        recorder.record(Action.WRITE, outcome, event.id, key=event.subject, seq=event.sequence)


def _book(recorder: Recorder, sessions: Sessions, event: Event) -> None:
    if inbox.once(sessions.get(), "ledger", event, book):
        _note(recorder, Action.EFFECT, event, "")


def _keep(sessions: Sessions, group: str, message: Message, reason: Exception) -> None:
    deadletters.keep(sessions.get(), group, message, reason)


def _note(recorder: Recorder, action: Action, event: Event, topic: str, partition: int = -1, offset: int = -1) -> None:
    op = Op(now(), "consumer", action, Outcome.OK, event.id, event.subject, event.sequence, topic, partition, offset)
    recorder.add(op)


def _on_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def _impatient(conninfo: str) -> str:
    """A server that was killed answers at once with a reset; one that is paused would be waited for without end."""
    return make_conninfo(conninfo, connect_timeout=PATIENCE)
