"""The Postgres helpers: a schema of one's own, and nothing but that removed."""

import asyncio
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine

from shared import postgres as helpers
from shared.errors import ConfigurationError
from shared.postgres import Connection
from shared.proxy import Proxy
from shared.servers.server import Endpoint

ADDRESSES = (
    "postgresql://me@127.0.0.1/db?connect_timeout=3",
    "postgresql://me:p%40%2Fs%20s@db.example.com:5432/d%20b?options=endpoint%3Dep-1&sslmode=require",
    "postgresql://me@[::1]:5433/db?options=-c%20statement_timeout%3D5s",
    "postgresql://one:5432,[2001:db8::2]:5433/db?target_session_attrs=read-write",
    "postgresql://%2Fvar%2Frun%2Fpostgresql/db",
    "host=127.0.0.1 port=5432 user=me password='p\\' s' dbname=db options='-c lock_timeout=1s'",
    "service=mine",
)
# After a test's own name: what a search path, an option, a pattern or a statement may take for its own.
NAMES = ("Caps", " and space", "a$b(c)", ',b"c""', "a\\b\tc", ".dot", "' -c x=y", '" -c search_path="public', "é" * 22)


class Forgetful(Proxy):
    """A way to Postgres that drops `options` from the startup message (PostgreSQL documentation, "StartupMessage")."""

    def __init__(self, postgres: Endpoint) -> None:
        given = conninfo_to_dict(postgres.url)
        super().__init__("forgetful", f"{given.get('host', '127.0.0.1')}:{given.get('port', 5432)}")
        self.given = make_conninfo(postgres.url, host="127.0.0.1", sslmode="disable", gssencmode="disable")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        words = body[4:].removesuffix(b"\0\0").split(b"\0")
        kept = [b"%b\0%b\0" % pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != b"options"]
        changed = body[:4] + b"".join(kept) + b"\0"
        reader.feed_data(struct.pack("!I", len(changed) + 4) + changed)  # the client waits: nothing is behind it
        await super()._accept(reader, writer)


@pytest.fixture
def database(postgres: Endpoint) -> Iterator[Connection]:
    with helpers.connect(postgres.url) as connection:
        yield connection


@pytest.fixture
def neighbour(postgres: Endpoint, unique: str) -> Iterator[str]:
    """A schema with all that it may have, whose name contains this test's name but does not begin with it."""
    furnish(postgres, name := f"neighbour_of_{unique}")
    yield name
    helpers.drop_schema(postgres, name)


def furnish(postgres: Endpoint, name: str) -> None:
    """A schema with a table, a publication and a replication slot that bear its name."""
    with helpers.connect(helpers.create_schema(postgres, name)) as connection:
        connection.execute("create table orders (id int primary key)")
        connection.execute(f"create publication {name}_all for table orders")
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [f"{name}_slot"])


def belongings(database: Connection, name: str) -> list[str]:
    """What begins with the name: schemas, publications, slots."""
    found = database.execute(
        "select 'schema' from pg_namespace where starts_with(nspname, %(name)s)"
        " union all select 'publication' from pg_publication where starts_with(pubname, %(name)s)"
        " union all select 'slot' from pg_replication_slots where starts_with(slot_name, %(name)s)",
        {"name": name},
    )
    return [kind for (kind,) in found]


def test_a_session_lives_in_its_schema(schema: str, unique: str) -> None:
    with helpers.connect(schema) as session:
        session.execute("create table orders (id int)")
        assert session.execute("select 'orders'::regclass::oid = to_regclass(%s)", [f"{unique}.orders"]).fetchone() == (
            True,
        )


@pytest.mark.parametrize("given", ADDRESSES)
def test_an_address_keeps_all_that_it_says_in_a_schema_and_as_a_url(given: str) -> None:
    before = conninfo_to_dict(given)
    for after in (conninfo_to_dict(helpers.in_schema(given, "mine")), conninfo_to_dict(helpers.url(given))):
        options = f'{before.get("options", "")} -c search_path="mine",public'.strip()
        assert after in ({**before, "options": options}, before)


@pytest.mark.parametrize("given", ADDRESSES)
def test_sqlalchemy_reads_the_url_as_libpq_does(given: str) -> None:
    engine = create_engine(helpers.url(given).replace("postgresql:", "postgresql+psycopg:"))
    arguments = dict(engine.dialect.create_connect_args(engine.url)[1])
    arguments.pop("context")  # psycopg's adapters
    assert arguments == conninfo_to_dict(given)


@pytest.mark.parametrize("options", ["-c statement_timeout=5s", "-cstatement_timeout=5s -c search_path=pg_catalog"])
def test_options_of_the_address_hold_in_the_schema(postgres: Endpoint, schema: str, unique: str, options: str) -> None:
    theirs = make_conninfo(postgres.url, options=options)
    with helpers.connect(helpers.in_schema(theirs, unique)) as session:
        found = session.execute("select current_schema(), current_setting('statement_timeout')").fetchone()
    assert found == (unique, "5s")


def test_options_of_the_environment_hold_in_the_schema(
    postgres: Endpoint, schema: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=7s")
    with helpers.connect(helpers.in_schema(postgres.url, unique)) as session:
        assert session.execute("show lock_timeout").fetchone() == ("7s",)


@pytest.mark.parametrize("rest", NAMES)
def test_tables_are_made_in_the_schema_whatever_its_name(postgres: Endpoint, unique: str, rest: str) -> None:
    name = unique + rest
    try:
        with helpers.connect(helpers.create_schema(postgres, name)) as session:
            session.execute("create table orders (id int)")
            where = "select nspname from pg_class join pg_namespace n on n.oid = relnamespace where relname = 'orders'"
            assert (name,) in session.execute(f"{where} and pg_table_is_visible(pg_class.oid)").fetchall()
    finally:
        helpers.drop_schema(postgres, name)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "ä" * 32])
def test_a_name_that_postgres_would_not_keep_is_refused(postgres: Endpoint, name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 63 bytes"):
        helpers.create_schema(postgres, name)


def test_several_schemas_are_searched_in_their_order(postgres: Endpoint, schema: str, unique: str) -> None:
    with helpers.connect(helpers.in_schema(postgres.url, unique, "other, schema")) as session:
        assert session.execute("show search_path").fetchone() == (f'"{unique}","other, schema",public',)


def test_an_address_that_drops_options_is_refused_and_nothing_is_made(
    postgres: Endpoint, database: Connection, schema: str, unique: str
) -> None:
    """What pgbouncer does with `ignore_startup_parameters = options`, which its users are told to set."""
    with (pooler := Forgetful(postgres)):
        url = make_conninfo(pooler.given, port=pooler.port)
        with pytest.raises(ConfigurationError, match="options that say so did not arrive"):
            helpers.connect(helpers.in_schema(url, unique))
        with pytest.raises(ConfigurationError, match="address Postgres itself, or a session pool"):
            helpers.create_schema(replace(postgres, url=url), f"{unique}_more")
        with helpers.connect(url) as session:
            assert session.execute("select current_schema()").fetchone() == ("public",)
    assert belongings(database, f"{unique}_more") == []


def test_a_schema_that_is_not_there_is_a_clear_error(postgres: Endpoint, unique: str) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no schema '{unique}'"):
        helpers.connect(helpers.in_schema(postgres.url, unique))


def test_a_schema_that_the_role_may_not_use_is_a_clear_error(
    postgres: Endpoint, database: Connection, schema: str, unique: str
) -> None:
    database.execute(f"create role {unique} login")
    try:
        with pytest.raises(ConfigurationError, match=f"that '{unique}' may use"):
            helpers.connect(make_conninfo(schema, user=unique))
    finally:
        database.execute(f"drop role {unique}")


def test_drop_schema_removes_the_schema_with_its_slot_and_publication(
    postgres: Endpoint, database: Connection, unique: str
) -> None:
    furnish(postgres, unique)
    assert sorted(belongings(database, unique)) == ["publication", "schema", "slot"]
    helpers.drop_schema(postgres, unique)
    assert belongings(database, unique) == []


def test_drop_schema_takes_the_slot_from_a_reader_that_still_has_it(
    postgres: Endpoint, database: Connection, unique: str
) -> None:
    furnish(postgres, unique)
    with closing(psycopg.connect(postgres.url, autocommit=True, replication="database")) as reader:
        start = (
            f"START_REPLICATION SLOT {unique}_slot LOGICAL 0/0 (proto_version '1', publication_names '{unique}_all')"
        )
        assert reader.pgconn.exec_(start.encode()).status == psycopg.pq.ExecStatus.COPY_BOTH
        helpers.drop_schema(postgres, unique)
    assert belongings(database, unique) == []


def test_drop_schema_removes_nothing_of_another_name(
    postgres: Endpoint, database: Connection, unique: str, neighbour: str
) -> None:
    furnish(postgres, unique)
    helpers.drop_schema(postgres, unique)
    assert sorted(belongings(database, neighbour)) == ["publication", "schema", "slot"]


def test_drop_schema_refuses_the_name_of_everything(postgres: Endpoint, database: Connection, neighbour: str) -> None:
    with pytest.raises(ValueError, match="every slot"):
        helpers.drop_schema(postgres, "")
    assert "slot" in belongings(database, neighbour)


def test_dropping_what_is_not_there_is_no_error(postgres: Endpoint, database: Connection, unique: str) -> None:
    helpers.drop_schema(postgres, unique)
    assert belongings(database, unique) == []


def test_a_schema_that_exists_is_an_error(postgres: Endpoint, schema: str, unique: str) -> None:
    with pytest.raises(psycopg.errors.DuplicateSchema):
        helpers.create_schema(postgres, unique)


def test_a_statement_outside_a_transaction_is_there_at_once(schema: str) -> None:
    with helpers.connect(schema) as one, helpers.connect(schema) as other:
        one.execute("create table orders (id int)")
        assert other.execute("select count(*) from orders").fetchone() == (0,)


def test_a_session_has_our_settings_whatever_the_defaults_and_the_address_has_the_last_word(postgres: Endpoint) -> None:
    address = postgres.url + "?options=-cstatement_timeout%3D7s%20-cbytea_output%3Descape"
    with helpers.connect(address) as connection:
        ours = helpers.SETTINGS | helpers.TRANSACTIONS
        found = {name: connection.execute(f"show {name}").fetchall()[0][0] for name in ours}
    wanted = ours | {"statement_timeout": "7s", "bytea_output": "escape"}
    assert {**found, "DateStyle": found["DateStyle"].split(",")[0]} == wanted
