"""A fresh event store on Postgres for each test, and a plain session in its schema."""

from collections.abc import Iterator

import pytest
from sourcing.postgres import PostgresStore, create

from shared.postgres import Connection, connect


@pytest.fixture
def store(schema: str) -> Iterator[PostgresStore]:
    """The reference store, with nothing in it."""
    create(schema)
    opened = PostgresStore(connect(schema))
    yield opened
    opened.close()


@pytest.fixture
def connection(store: PostgresStore, schema: str) -> Iterator[Connection]:
    """A session beside the store's own, in its schema."""
    with connect(schema) as opened:
        yield opened
