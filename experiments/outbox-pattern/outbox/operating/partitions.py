"""Partitions of the outbox by day, and the clean-up: a published day is dropped, which costs no row any work."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from psycopg import sql
from psycopg.errors import LockNotAvailable

from shared.postgres import Connection
from shared.snapshot import NOTHING, Snapshot

DEFAULT = "outbox_default"
# Names from the catalogue: as a regclass's text they would depend on the session, by quotes and search path.
DAYS = """
select relname from pg_partition_tree('outbox') join pg_class on pg_class.oid = relid
where isleaf and relname <> 'outbox_default'
"""
WAITING = "select count(*) from {} where published_at is null and not pg_visible_in_snapshot(xid, %s)"
# Columns as the whole has them. Not the identity, which no partition has of its own: the rows bring their positions.
ALONE = "create table {} (like outbox including defaults including constraints including generated)"
MOVE = """
with late as (delete from outbox_default where created_at >= {0} and created_at < {1} returning *)
insert into {2} ({3}) select {3} from late
"""
# Those that are not generated from others.
STORED = """
select attname from pg_attribute
where attrelid = 'outbox_default'::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
"""
ATTACH = "alter table outbox attach partition {} for values from ({}) to ({})"
PATIENCE = timedelta(seconds=1)


def create_day(connection: Connection, day: date, patience: timedelta = PATIENCE) -> str:
    """Make the partition of a day (UTC), unless it is there; returns its name. Do it before the day begins.

    A day that was forgotten has its rows in the default, and they move: they keep xid and position, so that a cursor
    that has passed them does not meet them again. They are moved before their table is a part of the outbox, which is
    what is published: no relay of the log sees them a second time, and no trigger of the outbox does. Writers and
    relays that mark are held up meanwhile. Raises psycopg.errors.LockNotAvailable, with nothing done, where an open
    transaction does not let it begin within `patience`.
    """
    name = f"outbox_{day:%Y%m%d}"
    with _alone(connection, patience, DEFAULT):
        if name not in _days(connection):
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            table, limits = sql.Identifier(name), [sql.Literal(start), sql.Literal(start + timedelta(days=1))]
            connection.execute(sql.SQL(ALONE).format(table))
            columns = sql.SQL(", ").join(sql.Identifier(column) for (column,) in connection.execute(STORED))
            connection.execute(sql.SQL(MOVE).format(*limits, table, columns))
            connection.execute(sql.SQL(ATTACH).format(table, *limits))
    return name


def drop_published(
    connection: Connection, before: date, done: Snapshot = NOTHING, patience: timedelta = PATIENCE
) -> list[str]:
    """Drop the days before `before` in which nothing waits any more; returns their names.

    `done` sees what is published: `published_by` of the slowest cursor; rows that are marked need none. For relays of
    the log take a snapshot (`home.snapshot`), and then wait until their slots are read (slots.py).

    A day into which a transaction still open may write stays for the next time: writers are held up for `patience`.
    """
    days = [name for name in _days(connection) if name < f"outbox_{before:%Y%m%d}"]
    idle = [name for name in days if not _waiting(connection, name, done)]
    return [name for name in idle if _drop(connection, name, done, patience)]


def _drop(connection: Connection, name: str, done: Snapshot, patience: timedelta) -> bool:
    """Look again when nobody can write, and drop: what is not committed yet was not seen at the first look."""
    try:
        with _alone(connection, patience, name):
            if _waiting(connection, name, done):
                return False
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
    except LockNotAvailable:
        return False
    return True


@contextmanager
def _alone(connection: Connection, patience: timedelta, part: str) -> Iterator[None]:
    """A transaction in which nobody else reads or writes the outbox. Raises psycopg.errors.LockNotAvailable."""
    limit = sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{patience // timedelta(milliseconds=1)}ms"))
    with connection.transaction():
        # What is committed while the lock is waited for is to be seen: no snapshot of before.
        connection.execute("set transaction isolation level read committed")
        connection.execute(limit)
        # The whole before its part, as writers lock them: the other way round would be a deadlock.
        connection.execute("lock table only outbox in access exclusive mode")
        connection.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(part)))
        yield


def _days(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute(DAYS).fetchall()]


def _waiting(connection: Connection, name: str, done: Snapshot) -> int:
    row = connection.execute(sql.SQL(WAITING).format(sql.Identifier(name)), [str(done)]).fetchone()
    return int(row[0]) if row else 0
