"""The write costs one statement more and no round trip; in SQLAlchemy, row and event share the session's fate."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from outbox.service import write_with_outbox
from outbox.session import add_event
from outbox.stage.shop import Shop
from outbox.table import INSERT_STEP, pending, steps
from outbox.writer import place_pipelined
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import kafka
from shared.errors import EventError
from shared.event import Event
from shared.postgres import Connection, connect
from shared.proxy import CHUNK, Proxy

BIND, QUERY = b"B", b"Q"  # messages of Postgres' protocol that make the server execute something


class CountingProxy(Proxy):
    """Counts what the client asks: statements, and how often it then waits for the answer."""

    statements = 0
    round_trips = 0
    _asking = False
    _unread = b""

    def reset(self) -> None:
        self.statements = self.round_trips = 0
        self._asking, self._unread = False, b""

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        from_client = sink.get_extra_info("peername")[1] == self.target_port
        try:
            while chunk := await source.read(CHUNK):
                if from_client:
                    self._count(chunk)
                else:
                    self.round_trips += self._asking
                self._asking = from_client
                sink.write(chunk)
                await sink.drain()
        finally:
            sink.close()

    def _count(self, chunk: bytes) -> None:
        self._unread += chunk
        while len(self._unread) >= 5:
            length = int.from_bytes(self._unread[1:5])
            if len(self._unread) <= length:
                break
            self.statements += self._unread[:1] in (BIND, QUERY)
            self._unread = self._unread[length + 1 :]


@pytest.fixture
def counter(shop: Shop) -> Iterator[CountingProxy]:
    given = conninfo_to_dict(shop.conninfo)
    proxy = CountingProxy("postgres", f"{given.get('host', '127.0.0.1')}:{given.get('port', 5432)}")
    with proxy:
        yield proxy


@pytest.fixture
def counted(shop: Shop, counter: CountingProxy) -> Iterator[Connection]:
    """A connection through the counter."""
    through = make_conninfo(shop.conninfo, host="127.0.0.1", port=counter.port, sslmode="disable", gssencmode="disable")
    with connect(through) as connection:
        yield connection


def place_without_event(connection: Connection, event: Event) -> None:
    """What the pipelined write is compared with: the business row alone, pipelined too."""
    with connection.pipeline():
        connection.execute("begin")
        values = [event.subject, event.sequence, "placed", event.data["cents"]]
        connection.execute(INSERT_STEP, values, prepare=True)
        connection.execute("commit")


def test_the_event_costs_one_statement_and_no_round_trip(
    shop: Shop, counted: Connection, counter: CountingProxy
) -> None:
    first, second, third, fourth = list(shop.events())[:4]
    place_without_event(counted, first)  # the first of each kind is prepared
    place_pipelined(counted, second, shop.topic)
    counter.reset()
    place_without_event(counted, third)
    alone = counter.statements, counter.round_trips
    counter.reset()
    place_pipelined(counted, fourth, shop.topic)
    assert alone == (3, 1)  # begin, insert, commit
    assert (counter.statements, counter.round_trips) == (4, 1)


def test_without_a_pipeline_every_statement_is_a_round_trip(
    shop: Shop, counted: Connection, counter: CountingProxy
) -> None:
    counter.reset()
    write_with_outbox(counted, kafka.producer(shop.broker), shop.topic, next(shop.events()))
    assert (counter.statements, counter.round_trips) == (4, 4)


def test_pipelined_both_rows_are_there(shop: Shop, connection: Connection) -> None:
    for event in shop.events():
        place_pipelined(connection, event, shop.topic)
    assert len(steps(shop.conninfo)) == pending(connection) == shop.count


def test_pipelined_a_refused_row_leaves_no_event_and_a_usable_connection(shop: Shop, connection: Connection) -> None:
    first, second = list(shop.events())[:2]
    place_pipelined(connection, first, shop.topic)
    with pytest.raises(psycopg.IntegrityError):
        place_pipelined(connection, first, shop.topic)
    assert pending(connection) == 1
    place_pipelined(connection, second, shop.topic)
    assert len(steps(shop.conninfo)) == pending(connection) == 2


def test_pipelined_an_event_that_cannot_be_stored_leaves_no_row(shop: Shop, connection: Connection) -> None:
    first, second = list(shop.events())[:2]
    with pytest.raises(EventError):
        place_pipelined(connection, replace(first, correlation_id="\0"), shop.topic)
    assert steps(shop.conninfo) == set()
    place_pipelined(connection, second, shop.topic)
    assert len(steps(shop.conninfo)) == pending(connection) == 1


def test_pipelined_it_refuses_to_commit_the_transaction_of_its_caller(shop: Shop, connection: Connection) -> None:
    with connection.transaction(), pytest.raises(psycopg.ProgrammingError, match="in a transaction"):
        place_pipelined(connection, next(shop.events()), shop.topic)
    assert pending(connection) == 0


@pytest.fixture
def session(shop: Shop) -> Iterator[Session]:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(shop.conninfo))
    with Session(engine) as session:
        yield session
    engine.dispose()


def take_step(session: Session, event: Event) -> None:
    values = {"order": event.subject, "number": event.sequence, "cents": event.data["cents"]}
    session.execute(text("insert into order_steps values (:order, :number, 'placed', :cents)"), values)


def test_a_session_that_commits_leaves_row_and_event(shop: Shop, connection: Connection, session: Session) -> None:
    event = next(shop.events())
    take_step(session, event)
    add_event(session, event, shop.topic)
    assert pending(connection) == 0
    session.commit()
    row = connection.execute("select id::text, aggregate_id, sequence, type from outbox").fetchone()
    assert row == (event.id, event.subject, event.sequence, event.type)
    assert len(steps(shop.conninfo)) == 1


def test_a_session_that_rolls_back_leaves_neither(shop: Shop, connection: Connection, session: Session) -> None:
    event = next(shop.events())
    take_step(session, event)
    add_event(session, event, shop.topic)
    session.rollback()
    assert pending(connection) == 0
    assert steps(shop.conninfo) == set()


def test_a_row_that_is_refused_takes_the_event_with_it(shop: Shop, connection: Connection, session: Session) -> None:
    event = next(shop.events())
    take_step(session, event)
    session.commit()
    add_event(session, event, shop.topic)
    with pytest.raises(IntegrityError):
        take_step(session, event)
    session.rollback()
    assert pending(connection) == 0
