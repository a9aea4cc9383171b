"""The guard for outboxes that Debezium reads: bad rows are parked as they are inserted, good ones pass untouched."""

from datetime import UTC, datetime

import psycopg
import pytest
from outbox.guard import add_routes, install
from outbox.operating.partitions import create_day
from outbox.parking import parked, retry
from outbox.relay.message import COLUMNS, OutboxRow, problem
from outbox.session import add_event
from outbox.stage.badrows import Bad, write_bad_rows
from outbox.stage.shop import Shop
from outbox.table import create, insert_event, outbox_values, pending, steps
from outbox.writer import place_pipelined
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from shared import postgres
from shared.postgres import Connection
from shared.servers.server import Endpoint

REASONS = {
    Bad.UNKNOWN_TYPE: "there is no route for 'no.such.type'",
    Bad.NOT_JSON: 'the payload is not: invalid input syntax for type json: Token "not" is invalid.',
    Bad.NUL_BYTE: 'the payload is not: invalid byte sequence for encoding "UTF8": 0x00',
    Bad.MISSING_FIELDS: "missing: type, source",
    Bad.TOO_LARGE: "bytes as a message, its route takes 1000000",
}
JSON_TYPES = (
    *("", "application/json", "application/json; charset=utf-8", "application/vnd.shop+json", "text/json"),
    *("Application/JSON", "application/json ;charset=utf-8"),
)
OTHER_TYPES = "text/plain", "application/octet-stream", "application/jsonish"
FORBIDDEN_TYPES = "application/json\n", "application/cloudevents+json", "Application/CloudEvents"
IS_JSON = b"{}", b" {} ", b"", b'"\\u0000"', b'{"a":1,"a":2}', b"-0", b"1E5", b"1e-400", b"1" * 4300, b'"\xc3\xa9"'
IS_NOT = (
    *(b" ", b"{} x", b"NaN", b"[1,]", b"01", b'"\t"', b"\xef\xbb\xbf{}", b'"\xff"', b'"\xed\xa0\x80"', b'"\x00"'),
    *(b'"\\ud800"', b"1e400", b"1" * 4301, b"[" * 65 + b"]" * 65, b"[" * 5_000 + b"]" * 5_000, b"[" * 100_000),
)
INSERT = "insert into outbox (aggregate_type, aggregate_id, type, source, payload, content_type)"
BY_HAND = f"{INSERT} values (%s, %s, 't', '/s', '{{}}', '')"


@pytest.fixture
def guarded(shop: Shop, connection: Connection) -> Shop:
    install(connection, [shop.topic])
    return shop


def reasons(connection: Connection) -> dict[str, str]:
    return {one.id: one.reason for one in parked(connection)}


def write(connection: Connection, topic: str, payload: bytes, content_type: str = "application/json") -> None:
    connection.execute(f"{INSERT} values (%s, 'a', 't', '/s', %s, %s)", [topic, payload, content_type])


def rows(connection: Connection) -> list[OutboxRow]:
    return [OutboxRow._make(row) for row in connection.execute(f"select {COLUMNS} from outbox order by position")]  # noqa: S608


def test_good_rows_pass_untouched(guarded: Shop, connection: Connection) -> None:
    guarded.write_backlog()
    written = [(event.id, outbox_values(event, guarded.topic)[2]) for event in guarded.events()]
    assert [(row.id, row.payload) for row in rows(connection)] == written
    assert parked(connection) == []


def test_bad_rows_are_parked_with_their_reason_and_the_transaction_goes_on(
    guarded: Shop, connection: Connection
) -> None:
    with connection.transaction():
        ids = write_bad_rows(connection, guarded.topic)
        insert_event(connection, next(guarded.events()), guarded.topic)
    found = reasons(connection)
    assert found.keys() == set(ids.values())
    assert [found[ident] for kind, ident in ids.items() if REASONS[kind] not in found[ident]] == []
    assert pending(connection) == 1


def test_a_bad_event_does_not_cost_the_business_row(guarded: Shop, connection: Connection) -> None:
    event = next(guarded.events())
    place_pipelined(connection, event, "no.such.type")
    assert steps(guarded.conninfo) == {(event.subject, event.sequence)}
    assert list(reasons(connection)) == [event.id]


def test_a_session_of_sqlalchemy_is_guarded_too(guarded: Shop, connection: Connection) -> None:
    bad, good = list(guarded.events())[:2]
    url = postgres.url(guarded.conninfo).replace("postgresql://", "postgresql+psycopg://")
    with Session(create_engine(url, poolclass=NullPool)) as session:
        add_event(session, bad, "no.such.type")
        add_event(session, good, guarded.topic)
        session.commit()
    assert list(reasons(connection)) == [bad.id]
    assert [row.id for row in rows(connection)] == [good.id]


def test_it_stands_before_every_partition_and_under_any_search_path(
    guarded: Shop, connection: Connection, unique: str
) -> None:
    create_day(connection, datetime.now(UTC).date())
    statement = psycopg.sql.SQL("insert into {} (aggregate_type, aggregate_id) values ('no.such.type', 'a')")
    with psycopg.connect(guarded.conninfo) as writer:
        writer.execute("set search_path = pg_catalog")
        writer.execute(statement.format(psycopg.sql.Identifier(unique, "outbox")))
    assert len(parked(connection)) == 1


@pytest.mark.parametrize("content_type", JSON_TYPES + OTHER_TYPES)
def test_a_payload_is_held_to_its_content_type(content_type: str, guarded: Shop, connection: Connection) -> None:
    write(connection, guarded.topic, b"not json", content_type)
    assert len(parked(connection)) == (content_type in JSON_TYPES)


@pytest.mark.parametrize("content_type", FORBIDDEN_TYPES)
def test_a_content_type_under_which_it_would_be_no_event_is_parked(
    content_type: str, guarded: Shop, connection: Connection
) -> None:
    write(connection, guarded.topic, b"{}", content_type)
    assert "character" in parked(connection)[0].reason or "the whole event" in parked(connection)[0].reason


def test_what_is_json_passes_and_what_is_not_is_parked(guarded: Shop, connection: Connection) -> None:
    for payload in IS_JSON + IS_NOT:
        write(connection, guarded.topic, payload)
    assert [row.payload for row in rows(connection)] == list(IS_JSON)
    assert len(parked(connection)) == len(IS_NOT)


def test_the_python_relays_judge_alike(guarded: Shop, connection: Connection) -> None:
    write(connection, guarded.topic, b"{}")
    [row] = rows(connection)
    assert [payload for payload in IS_JSON + IS_NOT if problem(row._replace(payload=payload))] == list(IS_NOT)


def test_in_a_database_of_another_encoding_it_parks_nothing_that_is_an_event(postgres: Endpoint, unique: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(
            sql.SQL("create database {} encoding latin1 locale 'C' template template0").format(sql.Identifier(unique))
        )
        try:
            latin = make_conninfo(postgres.url, dbname=unique)
            create(latin)
            with psycopg.connect(latin, autocommit=True) as connection:
                install(connection, ["orders"])
                for payload in ('"\N{EURO SIGN}"'.encode(), '"\xfc"'.encode(), b'"\xfc"'):
                    write(connection, "orders", payload)
                assert (pending(connection), len(parked(connection))) == (2, 1)
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(unique)))


def test_key_and_headers_count_as_the_broker_counts_them(guarded: Shop, connection: Connection) -> None:
    add_routes(connection, [guarded.topic], max_bytes=1000)
    for key in ("k", "k" * 400):
        connection.execute(BY_HAND, [guarded.topic, key])
    assert [row.aggregate_id for row in rows(connection)] == ["k"]
    assert REASONS[Bad.TOO_LARGE].replace("1000000", "1000") in parked(connection)[0].reason


def test_retry_passes_the_guard_again_and_parks_what_is_still_bad(guarded: Shop, connection: Connection) -> None:
    ids = write_bad_rows(connection, guarded.topic)
    add_routes(connection, ["no.such.type"])
    assert retry(connection, list(ids.values())) == 1
    assert [row.id for row in rows(connection)] == [ids.pop(Bad.UNKNOWN_TYPE)]
    assert reasons(connection).keys() == set(ids.values())


def test_a_route_that_cannot_be_a_topic_is_refused(guarded: Shop, connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        add_routes(connection, ["no topic's name"])
