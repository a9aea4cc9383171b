"""The Postgres helpers: a schema of one's own, and nothing but that removed."""

from collections.abc import Iterator

import psycopg
import pytest

from shared import postgres as helpers
from shared.postgres import Connection
from shared.servers.server import Endpoint


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


def test_the_schema_keeps_other_parameters_of_the_url() -> None:
    url = helpers.in_schema("postgresql://me@127.0.0.1/db?connect_timeout=3", "mine")
    fields = psycopg.conninfo.conninfo_to_dict(url)
    assert (fields["connect_timeout"], fields["options"]) == ("3", "-csearch_path=mine,public")


def test_drop_schema_removes_the_schema_with_its_slot_and_publication(
    postgres: Endpoint, database: Connection, unique: str
) -> None:
    furnish(postgres, unique)
    assert sorted(belongings(database, unique)) == ["publication", "schema", "slot"]
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
