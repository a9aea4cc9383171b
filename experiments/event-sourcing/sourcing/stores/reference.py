"""The lab's own store on Postgres, in a schema of its own."""

from shared import postgres
from shared.servers.server import Endpoint
from sourcing.postgres import PostgresStore
from sourcing.postgres import create as create_tables


def create(endpoint: Endpoint, space: str) -> None:
    create_tables(postgres.create_schema(endpoint, space))


def drop(endpoint: Endpoint, space: str) -> None:
    postgres.drop_schema(endpoint, space)


def open_store(endpoint: Endpoint, space: str) -> PostgresStore:
    return PostgresStore(postgres.connect(postgres.in_schema(endpoint.url, space)))
