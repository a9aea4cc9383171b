"""Partitions of the outbox by day, and the clean-up: a published day is dropped, which costs no row any work."""

from datetime import UTC, date, datetime, timedelta

from psycopg import sql

from shared.postgres import Connection

DAYS = (
    "select relid::regclass::text from pg_partition_tree('outbox') where isleaf and relid <> 'outbox_default'::regclass"
)
WAITING = "select count(*) from {} where published_at is null and not ((xid, position) <= (%s::text::xid8, %s))"


def create_day(connection: Connection, day: date) -> str:
    """Make the partition of a day (UTC), unless it is there; returns its name. Do it before the day begins."""
    name = f"outbox_{day:%Y%m%d}"
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    statement = "create table if not exists {} partition of outbox for values from ({}) to ({})"
    end = start + timedelta(days=1)
    connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(start), sql.Literal(end)))
    return name


def drop_published(connection: Connection, before: date, done: tuple[str, int] = ("0", 0)) -> list[str]:
    """Drop the days before `before` in which nothing waits any more; returns their names.

    `done` is the (xid, position) that the slowest cursor has reached; rows that are marked need none. For relays of the
    log, which know neither, pass the (xid, position) of a row that the slot is known to have passed.
    """
    dropped = []
    for (name,) in connection.execute(DAYS).fetchall():
        if name >= f"outbox_{before:%Y%m%d}":
            continue
        waiting = connection.execute(sql.SQL(WAITING).format(sql.Identifier(name)), done).fetchone()
        if waiting and waiting[0] == 0:
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
            dropped.append(name)
    return dropped
