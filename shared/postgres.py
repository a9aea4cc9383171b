"""Thin helpers over psycopg."""

from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from shared.servers.server import Endpoint

Connection = psycopg.Connection[tuple[Any, ...]]


def in_schema(url: str, schema: str) -> str:
    """The conninfo URL with `schema` first on the search path of every session."""
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}options={quote(f'-csearch_path={schema},public')}"


def create_schema(endpoint: Endpoint, schema: str) -> str:
    """Make the schema; returns a conninfo URL whose sessions live in it."""
    with psycopg.connect(endpoint.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    return in_schema(endpoint.url, schema)


def drop_schema(endpoint: Endpoint, schema: str) -> None:
    """Drop the schema with all that is in it, and the slots and publications whose names begin with its name."""
    if not schema:
        raise ValueError("refusing to drop every slot and publication")
    with psycopg.connect(endpoint.url, autocommit=True) as connection:
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where starts_with(slot_name, %s)"
            " and not active",
            [schema],
        )
        publications = connection.execute("select pubname from pg_publication where starts_with(pubname, %s)", [schema])
        for (name,) in publications.fetchall():
            connection.execute(sql.SQL("drop publication {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


def connect(conninfo: str) -> Connection:
    """A session in autocommit mode: transactions are where the code says `with connection.transaction()`."""
    return psycopg.connect(conninfo, autocommit=True)
