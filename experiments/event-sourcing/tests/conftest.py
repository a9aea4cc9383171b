"""A fresh event store on Postgres for each test, and a plain session in its schema."""

from collections.abc import Iterator

import pytest
from sourcing.postgres import PostgresStore, create

from shared.postgres import Connection, connect
from shared.wait import until

NOBODY_WRITES = "select pg_snapshot_xmin(now) = pg_snapshot_xmax(now) from pg_current_snapshot() as now"


@pytest.fixture
def store(schema: str) -> Iterator[PostgresStore]:
    """The reference store, with nothing in it."""
    create(schema)
    opened = PostgresStore(connect(schema))
    # A session that an earlier test killed may still be open, and readers of all wait for it.
    until("older transactions to end", lambda: opened.connection.execute(NOBODY_WRITES).fetchone() == (True,))
    yield opened
    opened.close()


@pytest.fixture
def connection(store: PostgresStore, schema: str) -> Iterator[Connection]:
    """A session beside the store's own, in its schema."""
    with connect(schema) as opened:
        yield opened
