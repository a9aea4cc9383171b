"""Around the outbox's days (14): several services, and what is in which partition."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

from psycopg import sql

from outbox.service import write_with_outbox
from outbox.stage.shop import Shop, serve
from shared.event import Event
from shared.postgres import Connection, connect
from shared.run import Run

DAYS = "select distinct (created_at at time zone 'utc')::date from outbox_default"
DAY_OF = "select relname from outbox join pg_class on pg_class.oid = outbox.tableoid where id = %s"


@contextmanager
def services(run: Run, shop: Shop, count: int) -> Iterator[None]:
    """Several services at work, each with its own orders. At the end of the block all of them have written theirs."""
    workers = []
    for who in range(count):
        name, own = f"service-{who}", replace(shop, seed=run.seed + who, prefix=f"order{who}")
        workers.append(run.worker(name, serve, own, write_with_outbox, process=name))
    yield
    for worker in workers:
        worker.wait()


def in_default(connection: Connection) -> list[date]:
    """The days of the rows that have no partition of theirs."""
    return [day for (day,) in connection.execute(DAYS).fetchall()]


def day_of(connection: Connection, event: Event) -> str:
    """The partition that the event is in."""
    [(name,)] = connection.execute(DAY_OF, [event.id]).fetchall()
    return str(name)


def rows(connection: Connection, table: str = "outbox") -> int:
    [(count,)] = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchall()
    return int(count)


def stored(shop: Shop) -> dict[bytes, bytes]:
    """Event id -> payload, as the table has it."""
    with connect(shop.conninfo) as connection:
        return {str(row[0]).encode(): bytes(row[1]) for row in connection.execute("select id, payload from outbox")}
