"""The frame of a lab's commands for operators: where they look, how they choose, and how they show it."""

from collections.abc import Collection, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shared.errors import ConfigurationError
from shared.output import make_console
from shared.postgres import Connection, connect, in_schema
from shared.servers.stack import Stack

console = make_console()
Dsn = Annotated[str | None, typer.Option(help="conninfo; default: the labs' Postgres, or LAB_POSTGRES")]
TIME = "%Y-%m-%d %H:%M:%S"

_THERE = "select bool_and(to_regclass(quote_ident(name)) is not null) from unnest(%s::text[]) as name"


def address(schema: str, dsn: str | None) -> str:
    """The conninfo of sessions in that schema."""
    return in_schema(dsn or Stack().endpoint("postgres").url, schema)


def connected(schema: str, dsn: str | None, missing: str, *tables: str) -> Connection:
    """A session in the schema. Raises ConfigurationError, "there {missing} …", unless all the tables are there."""
    connection = connect(address(schema, dsn))
    if connection.execute(_THERE, [list(tables)]).fetchone() != (True,):
        connection.close()
        raise ConfigurationError(f"there {missing} in schema {schema!r}: name the right one with --schema")
    return connection


def chosen(named: Sequence[str] | None, everything: bool, there: Collection[str], what: str, see: str) -> list[str]:
    """What was named, all of which must be there; or everything. Raises ConfigurationError naming one that is not."""
    if not named and not everything:
        raise ConfigurationError(f"name {what}s (see `{see}`), or say --all")
    for one in named or []:
        if one not in there:
            raise ConfigurationError(f"nothing of {what} {one!r} is parked here (see `{see}`)")
    return list(named or there)


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column)
    return made


def add(rows: Table, *cells: str) -> None:
    """A row of what others wrote: a bracket in it is no markup of ours."""
    rows.add_row(*map(escape, cells))
