"""What a role or a database has as its defaults changes nothing of what a store keeps, reads and projects."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC

import psycopg
import pytest
from psycopg import sql
from sourcing import snapshots
from sourcing.event import Metadata, NewEvent, data_of, metadata_of
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projector, install
from sourcing.rebuild import rebuild
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.shop.read_models import OrderSummary
from sourcing.snapshots import EveryEvents, PostgresSnapshots
from sourcing.stage import lives
from sourcing.stage.traffic import wrong_rows
from sourcing.store import ANY, StreamMetadata

from shared import home
from shared.postgres import connect, in_schema
from shared.servers.server import Endpoint

HOSTILE = {
    "bytea_output": "escape",
    "datestyle": "sql, dmy",
    "timezone": "Asia/Kathmandu",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "search_path": "nowhere",
    "client_encoding": "SQL_ASCII",
    "default_transaction_read_only": "on",
}
SUMMARY = OrderSummary()
DATA = {"name": "Zoë", "price": "5 €", "where": "東京", "odd": "\\ ' \x00 \x1f \U0001f600", "share": 0.1 + 0.2}


@pytest.fixture(params=["UTF8", "LATIN1", "SQL_ASCII"])
def hostile(request: pytest.FixtureRequest, postgres: Endpoint, unique: str) -> Iterator[str]:
    """A conninfo of a database whose defaults are none of ours, with an event store in it."""
    database = sql.Identifier(unique)
    conninfo = in_schema(postgres.url.rpartition("/")[0] + f"/{unique}", "lab")
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        make = "create database {} encoding {} template template0 locale 'C'"
        admin.execute(sql.SQL(make).format(database, sql.Literal(request.param)))
        with psycopg.connect(conninfo, autocommit=True) as first:
            first.execute("create schema lab")
        for name, value in HOSTILE.items():
            change = sql.SQL("alter database {} set {} = {}")
            admin.execute(change.format(database, sql.Identifier(name), sql.SQL(value) if "," in value else value))
        create(conninfo)
        yield conninfo
        admin.execute(sql.SQL("drop database {} with (force)").format(database))


def test_the_defaults_are_as_hostile_as_they_are_said_to_be(hostile: str) -> None:
    """Asked by a session of ours: one of theirs may be cancelled after 1 ms."""
    query = """
    select unnest(setconfig) from pg_db_role_setting
    where setdatabase = (select oid from pg_database where datname = current_database())
    """
    with connect(hostile) as session:
        found = dict(setting.split("=", 1) for (setting,) in session.execute(query))
    assert {name.lower(): value for name, value in found.items()} == HOSTILE


def test_events_come_back_as_they_were_written(hostile: str) -> None:
    event = NewEvent("Noted", DATA, metadata=Metadata(actor="Zoë", reason="東京"))
    with closing(PostgresStore(connect(hostile))) as store:
        store.append("note-1", [event])
        store.append("note-1", [event, event])
        store.set_metadata("note-1", StreamMetadata(custom=DATA))
        found = [*store.read("note-1"), *store.read("note-1", backwards=True), *store.read_all()]
        texts = "select to_char(recorded_at at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') from events"
        times = [text for (text,) in store.connection.execute(texts)]
        assert [one.version for one in found] == [1, 2, 3, 3, 2, 1, 1, 2, 3]
        assert {(data_of(one)["odd"], metadata_of(one)) for one in found} == {(DATA["odd"], event.metadata)}
        assert store.metadata("note-1").custom == data_of(found[0]) == DATA
        assert {f"{one.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}" for one in found} == set(times)


def test_commands_and_snapshots_work(hostile: str) -> None:
    with closing(PostgresStore(connect(hostile))) as store:
        store.connection.execute(snapshots.SCHEMA.read_text())
        kept = PostgresSnapshots(store.connection, EveryEvents(2))
        accounts = Repository(store, Account, snapshots=kept)
        accounts.execute("1", lambda account: account.open("Zoë 東京"))
        for _ in range(5):
            accounts.execute("1", lambda account: account.deposit(100))
        assert (accounts.load("1").state(), kept.failed) == (Repository(store, Account).load("1").state(), 0)
        assert (kept.used > 0, accounts.load("1").owner) == (True, "Zoë 東京")


def test_projections_and_their_rebuilds_say_what_the_events_say(hostile: str) -> None:
    with connect(hostile) as connection:
        install(connection, SUMMARY)
        events = lives.write(connection, 7, 20)
        assert Projector(connection, SUMMARY).catch_up() == events
        assert rebuild(hostile, SUMMARY).events == events
        assert not wrong_rows(connection)


def test_a_store_is_adopted(hostile: str) -> None:
    with connect(hostile) as connection:
        connection.execute("update events_homes set system_identifier = 1")
        assert home.adopt(connection, "events", "lab sourcing").came_from == 1
        assert PostgresStore(connection).append("note-1", [NewEvent("Noted", DATA)], ANY) == 1
