"""Failures and recovery (09): a service, a relay and a consumer that outlive their servers, and a ledger to check.

And the day of the disaster: the database's cluster is gone, a dump of it is restored into a fresh one, and all goes on.
A fresh cluster's transaction ids begin at some hundreds (sliceworkz/eventstore#143: the same in an event store). The
relay is the cursor's: it is the one that reads by them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import psycopg
from confluent_kafka import KafkaException, Message
from psycopg.conninfo import make_conninfo

from outbox import deadletters, inbox
from outbox.relay import Relay
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.reading import Reader
from outbox.relay.running import keep_running
from outbox.service import write_with_outbox
from outbox.stage.shop import Shop, make_relay
from outbox.table import COMMAND, TABLE, create, insert_event
from outbox.wrong.positions import ByPair
from shared import codec, home, kafka, moving
from shared.errors import NotAdopted
from shared.event import Event
from shared.faults import Victim
from shared.history import Action, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect, create_schema, in_schema, number
from shared.run import Run, slug
from shared.servers.handle import Handle
from shared.servers.server import Endpoint
from shared.session import AWAY, Session, keep_trying
from shared.threads import paced
from shared.wait import until
from shared.worker import until_told

PATIENCE = 5  # seconds after which a connection attempt, or a statement that nobody answers, counts as failed

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
        events = paced(_held(shop, go_on), shop.rate)

        def work() -> None:
            with connect(_impatient(shop.conninfo)) as connection:
                for event in events:
                    _write(recorder, connection, shop.topic, event)

        keep_trying(work)


def _held(shop: Shop, go_on: Path | None) -> Iterator[Event]:
    for who, event in enumerate(shop.events()):
        while go_on and who >= shop.count // 2 and not go_on.exists():
            time.sleep(0.02)
        yield event


def relay_through(shop: Shop) -> None:
    """Relay by the cursor until SIGTERM, through all failures (relay/running.py)."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    stop = until_told()
    with Recorder(shop.history, "relay") as recorder:

        def make(session: Connection) -> Relay:
            return make_relay(shop, CursorRelay, session, 200, 0.02, recorder=recorder)

        keep_running(shop.conninfo, make, stop)


def consume_through(shop: Shop, group: str) -> None:
    """Book every event into the ledger, once by the inbox, until SIGTERM. Offsets are committed after the effect."""
    stop = until_told()
    with (
        Recorder(shop.history, "consumer") as recorder,
        kafka.consumer(shop.broker, [shop.topic], group) as consumer,
        closing(Session(_impatient(shop.conninfo))) as session,
    ):
        while not stop.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error():
                continue
            try:
                event = Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message))
                _note(recorder, Action.DELIVER, event, shop.topic, message.partition() or 0, message.offset() or 0)
                # Tried until it is done: going on would commit an offset past an event without effect.
                keep_trying(partial(_book, recorder, session, event), stop=stop)
            except deadletters.UNUSABLE as error:
                keep_trying(partial(_keep, session, group, message, error), stop=stop)
            keep_trying(partial(consumer.commit, message, asynchronous=False), (*AWAY, KafkaException), stop)


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


def _book(recorder: Recorder, session: Session, event: Event) -> None:
    if inbox.once(session.get(), "ledger", event, book):
        _note(recorder, Action.EFFECT, event, "")


def _keep(session: Session, group: str, message: Message, reason: Exception) -> None:
    deadletters.keep(session.get(), group, message, reason)


def _note(recorder: Recorder, action: Action, event: Event, topic: str, partition: int = -1, offset: int = -1) -> None:
    op = Op(now(), "consumer", action, Outcome.OK, event.id, event.subject, event.sequence, topic, partition, offset)
    recorder.add(op)


def _impatient(conninfo: str) -> str:
    """A server that was killed answers at once with a reset; one that is paused would be waited for without end."""
    return make_conninfo(conninfo, connect_timeout=PATIENCE)


@dataclass(frozen=True)
class Failing:
    """A shop whose processes go on, the servers of the run below it, and who relays its events."""

    run: Run
    shop: Shop
    database: Handle
    broker: Handle
    relaying: Victim  # our relay, or the Connect in which Debezium runs

    @contextmanager
    def consumed(self) -> Iterator[None]:
        """Its consumer at work, which has booked the first event: to join its group takes seconds."""
        with self.run.worker("consumer", consume_through, self.shop, f"{self.shop.topic}.group"):
            self.run.worker("service", serve_through, replace(self.shop, count=1, prefix="first")).wait()
            until("the first event in the ledger", lambda: self.booked() == 1)
            yield

    def booked(self) -> int:
        """Different events in the ledger."""
        return self._count("select count(distinct event_id) from ledger")

    def committed(self) -> int:
        return self._count("select count(*) from order_steps")

    def _count(self, query: str) -> int:
        with connect(self.shop.conninfo) as connection:
            return number(connection, query)

    def answers(self) -> bool:
        """Whether the database does."""
        try:
            return self.committed() >= 0
        except psycopg.OperationalError:
            return False


@contextmanager
def opened(
    run: Run, database: Handle, broker: Handle, name: str, count: int, rate: float, way: type[CursorRelay | Connector]
) -> Iterator[Failing]:
    """An outbox, a ledger, a topic, and the relay at work: the cursor, or Debezium in a Connect of its own."""
    schema = f"{run.name}_{slug(name)}"
    conninfo = create_schema(database.endpoint, schema)
    create(conninfo)
    with connect(conninfo) as connection:
        connection.execute(LEDGER)
        connection.execute(inbox.SCHEMA)
    kafka.create_topics(broker.endpoint, [topic := f"{run.name}.{slug(name)}"])
    shop = Shop(conninfo, broker.endpoint, topic, run.history_file(slug(name)), run.seed, count, rate=rate)
    if way is CursorRelay:
        with run.worker("relay", relay_through, shop) as relaying:
            yield Failing(run, shop, database, broker, relaying)
    else:
        worker = run.own("connect", {"kafka": broker.endpoint})
        with Connector(worker.endpoint, database.endpoint, schema, schema).running():
            yield Failing(run, shop, database, broker, worker)


# The last failure.

BARE = ByPair.after.replace("outbox_xid", "")  # WRONG here: as if ids of transactions were good everywhere
NEW = 3  # events after the restore


@dataclass(frozen=True)
class Restored:
    """Event ids, but for the refusal."""

    pending: list[str]  # in the dump, and not yet published
    refusal: str  # what the relay said before the outbox was adopted
    bare: list[str]  # what the query gets that compares with the cluster's own ids
    written: list[str]  # after the adoption
    read: list[str]  # by a reader from the first row, when all that was written
    published: list[str]  # in the topic at the end


def move(source: Endpoint, target: Endpoint, shop: Shop) -> Restored:
    """Half of the shop's events published, all dumped; the rest is published by a relay on the other cluster."""
    schema = shop.topic.replace(".", "_")
    create(conninfo := create_schema(source, schema))
    events = list(shop.events())
    with connect(conninfo) as connection, connect(target.url) as fresh:
        moving.age(connection, max(0, moving.newest_id(fresh) + 3_000 - moving.newest_id(connection)))
        for event in events[: len(events) // 2]:
            insert_event(connection, event, shop.topic)
        make_relay(replace(shop, conninfo=conninfo), CursorRelay, connection).step()
        for event in events[len(events) // 2 :]:
            insert_event(connection, event, shop.topic)
    moving.restore(target, moving.dump(source, schema))
    return _go_on(replace(shop, conninfo=in_schema(target.url, schema)), [event.id for event in events])


def _go_on(shop: Shop, before: list[str]) -> Restored:
    new = list(replace(shop, count=NEW, prefix="new").events())
    with connect(shop.conninfo) as connection:
        refusal = _refusal(shop)
        bare = connection.execute(
            f"select id::text from outbox where {BARE} order by xid, position",  # noqa: S608
            {"xid": "0", "position": 0},
        ).fetchall()
        home.adopt(connection, TABLE, COMMAND)
        for event in new:
            insert_event(connection, event, shop.topic)
        make_relay(shop, CursorRelay, connection).step()
        read = [row[5] for rows in Reader(connection).pages(shop.count + NEW) for row in rows]
    published = [kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)]
    pending = before[len(before) // 2 :]
    return Restored(pending, refusal, [one for (one,) in bare], [event.id for event in new], read, published)


def _refusal(shop: Shop) -> str:
    with connect(shop.conninfo) as connection:
        try:
            make_relay(shop, CursorRelay, connection)
        except NotAdopted as error:
            return str(error)
    return ""
