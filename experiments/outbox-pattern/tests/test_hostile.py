"""A database with other defaults than ours: every relay, writer, reader, store and inbox works as on any other.

Public reports of the kind: readyset#1132 (bytea_output), airbyte#376 (a LATIN1 database).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from outbox import guard, inbox
from outbox.operating.partitions import create_day, drop_published
from outbox.operating.slots import look, publish_from
from outbox.parking import discard, parked, retry
from outbox.relay import wal
from outbox.relay.cursor import CursorRelay
from outbox.relay.debezium import Connector
from outbox.relay.message import OutboxRow, text
from outbox.relay.notified import NotifiedPublisher, ring
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.reading import Reader
from outbox.session import add_event
from outbox.stage.readers import MakeReader
from outbox.stage.shop import RELAYS, RelayClass, Shop, at_work, in_transactions, make_relay
from outbox.table import create, insert_event
from outbox.writer import place_pipelined
from outbox.wrong.positions import BehindOpen, ByPair, ByPosition
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from shared import kafka
from shared.event import Event
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint
from shared.wait import until

# Timeouts are small, and longer than any statement here takes on a slow machine.
DEFAULTS = {
    "bytea_output": "escape",
    "client_encoding": "SQL_ASCII",
    "DateStyle": "German",
    "TimeZone": "Pacific/Auckland",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "search_path": "nowhere",
    "lock_timeout": "30s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
}
OLD = date(2020, 2, 29)


class Message(NamedTuple):
    """What a consumer gets."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


@pytest.fixture
def database(postgres: Endpoint, unique: str) -> Iterator[Endpoint]:
    name = sql.Identifier(unique)
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        make = "create database {} encoding 'LATIN1' template template0 locale 'C'"
        admin.execute(sql.SQL(make).format(name))
        for setting, value in DEFAULTS.items():
            change = sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), value)
            admin.execute(change)
        yield replace(postgres, url=make_conninfo(postgres.url, dbname=unique))
        admin.execute(sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture
def hostile(database: Endpoint, kafka: Endpoint, topic: Callable[..., str], unique: str, tmp_path: Path) -> Shop:
    """The shop in that database, with a slot."""
    with connect(database.url) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(unique)))
    create(conninfo := make_conninfo(database.url, options=f"-csearch_path={unique}"))
    history, slot = tmp_path / "hostile.jsonl", f"{unique}_hostile"
    return Shop(conninfo, kafka, topic("hostile"), history, seed=7, count=12, slot=slot)


@pytest.fixture
def session(hostile: Shop) -> Iterator[Connection]:
    wal.set_up(hostile.conninfo, hostile.slot, hostile.slot.removesuffix("_hostile"))
    with connect(hostile.conninfo) as opened:
        yield opened
    wal.tear_down(hostile.conninfo, hostile.slot)


def events(shop: Shop) -> list[Event]:
    """With characters that Latin-1 has, and in the payload, which is bytes, such as it has not."""
    return [
        replace(
            event,
            subject=(subject := event.subject.replace("order", "ördré")),
            partition_key=subject,
            source="/shöp",
            correlation_id="ä\\'",
            data={**event.data, "note": "日本 \\ é"},
        )
        for event in shop.events()
    ]


def write(shop: Shop) -> None:
    """By every writer in turn: in a transaction, in a pipeline, in a session of SQLAlchemy."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: in_transactions(shop.conninfo))
    with connect(shop.conninfo) as connection, Session(engine) as session:
        for number, event in enumerate(events(shop)):
            if number % 3 == 0:
                insert_event(connection, event, shop.topic)
            elif number % 3 == 1:
                place_pipelined(connection, event, shop.topic)
            else:
                add_event(session, event, shop.topic)
                session.commit()
    engine.dispose()


def messages(shop: Shop) -> dict[str, Message]:
    """Event id -> its message."""
    found = {}
    for message in kafka.read_all(shop.broker, shop.topic):
        headers = {name: value for name, value in kafka.headers(message).items() if name.startswith(("ce_", "content"))}
        partition = message.partition() or 0
        found[headers["ce_id"].decode()] = Message(partition, kafka.key(message), kafka.value(message), headers)
    return found


def published(shop: Shop) -> dict[str, Message]:
    return until("every event to be published", lambda: found if len(found := messages(shop)) == shop.count else None)


@pytest.fixture
def usual(shop: Shop, connection: Connection) -> dict[str, Message]:
    """The messages of the same events on a database with the usual defaults."""
    same = replace(shop, count=12)
    write(same)
    make_relay(same, PollingPublisher, connection).step()
    return published(same)


@pytest.mark.parametrize("way", RELAYS)
def test_every_relay_sends_the_same_bytes_to_the_same_partition(
    way: RelayClass, hostile: Shop, session: Connection, usual: dict[str, Message]
) -> None:
    write(hostile)
    with at_work(make_relay(hostile, way, session, 5)):
        assert published(hostile) == usual


def test_a_relay_that_is_rung_for_sends_them_too(hostile: Shop, session: Connection, usual: dict[str, Message]) -> None:
    relaying = NotifiedPublisher(session, Publisher(hostile.broker), interval=600.0)
    with connect(hostile.conninfo) as writer, at_work(relaying):
        write(hostile)
        ring(writer)
        assert published(hostile) == usual


def test_the_way_back_of_a_lost_slot_sends_them_too(
    hostile: Shop, session: Connection, usual: dict[str, Message]
) -> None:
    write(hostile)
    assert look(session, hostile.slot).kept > 0
    assert publish_from(session, Publisher(hostile.broker), 0) == hostile.count
    assert published(hostile) == usual


def test_debezium_sends_them_too(
    hostile: Shop, session: Connection, database: Endpoint, usual: dict[str, Message], server: Callable[[str], Endpoint]
) -> None:
    name = hostile.slot.removesuffix("_hostile")
    connector = Connector(server("connect"), database, name, name)
    connector.put()
    try:
        write(hostile)
        assert published(hostile) == usual
    finally:
        connector.delete()


@pytest.mark.parametrize("way", [ByPosition, BehindOpen, ByPair, Reader])
def test_every_reader_reads_what_was_written(way: MakeReader, hostile: Shop, session: Connection) -> None:
    write(hostile)
    rows = [OutboxRow._make(row) for rows in way(session).pages(100) for row in rows]
    read = [(text(row.id), row.aggregate_id, int(row.sequence)) for row in rows]
    assert read == [(event.id, event.subject, event.sequence) for event in events(hostile)]


def test_what_is_parked_is_read_put_back_and_dropped(hostile: Shop, session: Connection) -> None:
    first, second = events(hostile)[:2]
    for event in (first, second):
        insert_event(session, event, "no.such.topic")
    make_relay(hostile, CursorRelay, session).step()
    found = parked(session)
    assert [(one.id, one.aggregate_id) for one in found] == [(e.id, e.subject) for e in (first, second)]
    assert abs(found[0].parked_at - datetime.now(UTC)) < timedelta(hours=1)
    assert retry(session, [first.id]) == discard(session, [second.id]) == 1


def test_days_are_made_late_and_dropped(hostile: Shop, session: Connection) -> None:
    at = datetime(OLD.year, OLD.month, OLD.day, 23, tzinfo=UTC)
    session.execute("insert into outbox (created_at, published_at) values (%s, %s)", [at, at])
    name = create_day(session, OLD)
    assert session.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(name))).fetchone() == (1,)
    assert drop_published(session, OLD + timedelta(days=1)) == [name]


def test_an_inbox_has_one_effect_however_many_try(hostile: Shop, session: Connection) -> None:
    session.execute(inbox.SCHEMA)
    session.execute("create table effect (event_id uuid)")
    event = events(hostile)[0]

    def effect(connection: Connection, event: Event) -> None:
        connection.execute("insert into effect values (%s)", [event.id])

    def once(_: int) -> bool:
        with connect(hostile.conninfo) as own:
            return inbox.once(own, "bücher", event, effect)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(once, range(16))) == 1
    assert session.execute("select count(*) from effect").fetchone() == (1,)
    assert inbox.forget(session, timedelta(hours=-1)) == 1


JUDGED = [
    (b'{"note": "\xe6\x97\xa5"}', "application/json", True),
    (b'{"note": "\xe9"}', "application/json", False),
    (b"no json", "application/vnd.shop+json; charset=utf-8", False),
    (b"\\x4a no json", "text/plain", True),
]


@pytest.mark.parametrize(("payload", "content_type", "good"), JUDGED)
def test_the_guard_judges_as_on_any_other(
    payload: bytes, content_type: str, good: bool, hostile: Shop, session: Connection
) -> None:
    """In the session of a writer that sets nothing."""
    guard.install(session, [hostile.topic])
    insert = "insert into outbox (aggregate_type, aggregate_id, type, source, payload, content_type)"
    values = [hostile.topic, "a", "t", "/s", payload, content_type]
    with psycopg.connect(hostile.conninfo, autocommit=True) as writer:
        writer.execute(f"{insert} values (%s, %s, %s, %s, %s, %s)", values)
    assert len(parked(session)) == (not good)
