"""Partitions of the outbox by day, and the clean-up: a published day is dropped, which costs no row any work."""

from datetime import UTC, date, datetime, timedelta

from psycopg import sql
from psycopg.errors import LockNotAvailable

from shared.postgres import Connection

DAYS = (
    "select relid::regclass::text from pg_partition_tree('outbox') where isleaf and relid <> 'outbox_default'::regclass"
)
WAITING = "select count(*) from {} where published_at is null and not ((xid, position) <= (%s::text::xid8, %s))"
PATIENCE = timedelta(seconds=1)


def create_day(connection: Connection, day: date) -> str:
    """Make the partition of a day (UTC), unless it is there; returns its name. Do it before the day begins."""
    name = f"outbox_{day:%Y%m%d}"
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    statement = "create table if not exists {} partition of outbox for values from ({}) to ({})"
    end = start + timedelta(days=1)
    connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(start), sql.Literal(end)))
    return name


def drop_published(
    connection: Connection, before: date, done: tuple[str, int] = ("0", 0), patience: timedelta = PATIENCE
) -> list[str]:
    """Drop the days before `before` in which nothing waits any more; returns their names.

    `done` is the (xid, position) that the slowest cursor has reached; rows that are marked need none. For relays of the
    log, which know neither, pass the (xid, position) of a row that the slot is known to have passed.

    A day into which a transaction still open may write stays for the next time: writers are held up for `patience`.
    """
    days = [name for (name,) in connection.execute(DAYS).fetchall() if name < f"outbox_{before:%Y%m%d}"]
    idle = [name for name in days if not _waiting(connection, name, done)]
    return [name for name in idle if _drop(connection, name, done, patience)]


def _drop(connection: Connection, name: str, done: tuple[str, int], patience: timedelta) -> bool:
    """Look again when nobody can write, and drop: what is not committed yet was not seen at the first look."""
    limit = sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{patience // timedelta(milliseconds=1)}ms"))
    try:
        with connection.transaction():
            connection.execute(limit)
            # The whole before its part, as writers lock them: the other way round would be a deadlock.
            connection.execute(sql.SQL("lock table only outbox in access exclusive mode"))
            connection.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(name)))
            if _waiting(connection, name, done):
                return False
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
    except LockNotAvailable:
        return False
    return True


def _waiting(connection: Connection, name: str, done: tuple[str, int]) -> int:
    row = connection.execute(sql.SQL(WAITING).format(sql.Identifier(name)), done).fetchone()
    return int(row[0]) if row else 0
