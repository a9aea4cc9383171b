"""Where a table lives whose rows are read in the order of their transactions, and how it moves: see home.sql.

Transaction ids are those of one cluster. Restored into another one, such a table refuses to be written to and to be
read in that order, until somebody has adopted it there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from psycopg.errors import DeadlockDetected, ObjectNotInPrerequisiteState, SerializationFailure, UndefinedFunction
from psycopg.pq import TransactionStatus

from shared.errors import NotAdopted
from shared.postgres import Connection
from shared.snapshot import Snapshot

SQL = Path(__file__).with_name("home.sql")
# Postgres lists the open transactions below the newest that has ended. Those above it, up to the next id to be given
# out (`age` counts from there), may be at work as well, and are added: what is above `xmax` has not begun.
SNAPSHOT = """
select {table}_xid(pg_snapshot_xmin(now))::text::bigint, {table}_xid(pg_snapshot_xmax(now))::text::bigint,
       array(select {table}_xid(xip)::text::bigint from pg_snapshot_xip(now) as xip order by 1),
       age(pg_snapshot_xmax(now)::xid)
from pg_current_snapshot() as now
"""


class Adopted(NamedTuple):
    """What an adoption has found, and what it has done."""

    came_from: int | None  # the system identifier of the cluster that the rows came from; None: from nowhere else
    home: int  # that of this one
    newest: int  # the highest number of a row
    moved_before: int  # what was added to a transaction's id
    moved: int  # what is added from now on

    def __str__(self) -> str:
        """As an operator wants to read it."""
        came = "this cluster's own" if self.came_from is None else f"from cluster {self.came_from}"
        how = "as before" if self.moved == self.moved_before else f"it was {self.moved_before:,}"
        return (
            f"adopted in cluster {self.home}: the rows, {came}, are numbered up to {self.newest:,}; "
            f"{self.moved:,} is added to the ids of transactions ({how})"
        )


def script(table: str, command: str) -> str:
    """SQL that makes what the table needs beside it; the table is there. `command` is the lab's: `lab outbox`."""
    functions = SQL.read_text().replace("{table}", table).replace("{command}", command)
    return f"{functions}\nselect {table}_adopt();\n"


def check(connection: Connection, table: str, command: str) -> None:
    """Raise NotAdopted unless the table was made or adopted in this cluster. One round trip."""
    with _adopted(table, command):
        _ask(connection, f"select {table}_xid('0')")


def snapshot(connection: Connection, table: str, command: str = "") -> Snapshot:
    """What is committed now, in the numbers of the table's rows. The session is in no transaction.

    One round trip. Raises NotAdopted.
    """
    with _adopted(table, command):
        [(xmin, xmax, listed, more)] = _ask(connection, SNAPSHOT.format(table=table))
    return Snapshot(xmin, xmax + more, (*listed, *range(xmax, xmax + more)))


def _ask(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows. Alone, it is asked again where it was refused for the sake of others, which serializable does."""
    while True:
        try:
            return connection.execute(query).fetchall()
        except (SerializationFailure, DeadlockDetected):
            if connection.info.transaction_status != TransactionStatus.IDLE:
                raise


@contextmanager
def _adopted(table: str, command: str) -> Iterator[None]:
    try:
        yield
    except ObjectNotInPrerequisiteState as error:
        raise NotAdopted(error.diag.message_primary or str(error)) from error
    except UndefinedFunction as error:
        raise NotAdopted(f"nobody has noted the cluster of {table}: run `{command} adopt` first") from error


def adopt(connection: Connection, table: str, command: str) -> Adopted:
    """Make the table at home in this cluster. It waits for who writes to it now, and who wants to waits meanwhile."""
    with connection.transaction():
        connection.execute("set transaction isolation level read committed, read write")
        connection.execute(f"lock table {table} in share row exclusive mode")  # before its functions are replaced
        connection.execute(SQL.read_text().replace("{table}", table).replace("{command}", command))
        [found] = connection.execute(f"select * from {table}_adopt()").fetchall()  # noqa: S608
    return Adopted._make(found)
