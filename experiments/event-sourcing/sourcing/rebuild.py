"""Rebuilding a read model from the first event, without anybody seeing it half done.

Blue and green: the new tables are built in a schema beside, by the same code with another search path, while the old
ones are read and kept up to date. When the new ones have caught up they take the place, the checkpoint and the parked
events of the old ones in one transaction: every reader sees the old tables or the new ones, whole. DDL is transactional
in PostgreSQL ("SQL commands": ALTER TABLE ... SET SCHEMA); a prepared statement of a reader is planned anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql
from psycopg.errors import LockNotAvailable
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from shared.postgres import Connection, connect
from sourcing import checkpoint
from sourcing.errors import SourcingError
from sourcing.projection import BATCH, Policy, Projection, Projector, install
from sourcing.repository import Reader, as_stored
from sourcing.windows import Hook, RebuildWindow, nowhere

# The switch waits for readers of the old tables, and new readers wait behind it: so briefly, and rather again later.
LOCK_TIMEOUT, ATTEMPTS, LATER = "300ms", 100, 0.3

READY = f"""
select (beside.xid, beside.position) >= (live.xid, live.position) or not ({checkpoint.THERE.format(at="live")})
from {{beside}}.checkpoints as beside join {{live}}.checkpoints as live using (projection) where projection = %s
"""  # noqa: S608
TAKE_OVER = (
    """
insert into {live}.checkpoints select * from {beside}.checkpoints where projection = %(name)s
on conflict (projection) do update set (version, xid, position, last_stream, last_version, last_id, updated_at)
    = row(excluded.version, excluded.xid, excluded.position, excluded.last_stream, excluded.last_version,
          excluded.last_id, excluded.updated_at)
""",
    "delete from {live}.parked_events where projection = %(name)s",
    "insert into {live}.parked_events select * from {beside}.parked_events where projection = %(name)s",
)


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did."""

    events: int  # read, of all categories
    attempts: int  # of the switch
    parked: int


def rebuild(
    conninfo: str,
    projection: Projection,
    read: Reader = as_stored,
    policy: Policy = Policy.PARK,
    batch: int = BATCH,
    progress: Callable[[int], object] = lambda events: None,
    waiting: Callable[[int], None] = lambda attempts: None,
    at: Hook = nowhere,
) -> Rebuilt:
    """Build the tables anew beside those in the conninfo's schema, catch up, and switch.

    Calls `progress` with the events so far after each batch, and `waiting` with the attempts so far when readers did
    not let it switch.

    Killed at any time, it leaves the live tables as they are and the half-built ones in a schema of their own, which
    the next rebuild drops. Raises ProjectionStopped under Policy.STOP, and LockNotAvailable when readers of the old
    tables leave no gap for the switch. A running projector of the same version goes on with the new tables; one of
    another version raises ProjectionReplaced.
    """
    with connect(conninfo) as connection, _beside(connection, projection) as (live, beside):
        projector = Projector(connection, projection, read=read, policy=policy, batch=batch)

        def built(events: int) -> None:
            progress(events)
            at(RebuildWindow.BUILDING)

        events = projector.catch_up(built)
        while (late := projector.catch_up()) >= batch:  # written meanwhile, less each time
            events += late
        switching = Retrying(
            retry=retry_if_exception_type(LockNotAvailable),
            wait=wait_random(0, LATER),
            stop=stop_after_attempt(ATTEMPTS),
            after=lambda state: waiting(state.attempt_number),
            reraise=True,
        )
        events += late + switching(_switch, projector, live, beside, at)
        at(RebuildWindow.SWITCHED)
        parked = connection.execute("select count(*) from parked_events where projection = %s", [projection.name])
        return Rebuilt(events, switching.statistics["attempt_number"], (parked.fetchone() or (0,))[0])


@contextmanager
def _beside(connection: Connection, projection: Projection) -> Iterator[tuple[str, str]]:
    """Empty tables in a fresh schema, first on the connection's search path: (live schema, schema beside)."""
    query = "select current_schema(), current_setting('search_path')"
    live, path = connection.execute(query).fetchone() or ("", "")
    names = live, f"{live}_{projection.name}_new"
    drop = sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(names[1]))
    connection.execute(drop)
    connection.execute(sql.SQL("create schema {}").format(sql.Identifier(names[1])))
    connection.execute("select set_config('search_path', quote_ident(%s) || ', ' || %s, false)", [names[1], path])
    try:
        install(connection, projection)
        yield names
    finally:
        if not connection.broken:
            connection.execute("select set_config('search_path', %s, false)", [path])
            connection.execute(drop)


def _switch(projector: Projector, live: str, beside: str, at: Hook) -> int:
    """In one transaction: the live projector waits, the last events are taken in, the new tables take over."""
    connection, projection, events = projector.connection, projector.projection, 0
    names = {"live": sql.Identifier(live), "beside": sql.Identifier(beside)}
    name = {"name": projection.name}
    with connection.transaction():
        connection.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        lock = sql.SQL("select from {live}.checkpoints where projection = %(name)s for update").format(**names)
        connection.execute(lock, name)
        # What the old tables have, the new ones must have: no reader may see a total go down. But if they were made of
        # events that are not there any more.
        while not _ready(connection, projection, names):
            if not (passed := projector.step()):
                raise SourcingError(f"the checkpoint of {projection.name!r} lies behind the last event there is")
            events += passed
        for table in projection.tables:
            moved = {**names, "table": sql.Identifier(table)}
            connection.execute(sql.SQL("drop table if exists {live}.{table}").format(**moved))
            connection.execute(sql.SQL("alter table {beside}.{table} set schema {live}").format(**moved))
        for statement in TAKE_OVER:
            connection.execute(sql.SQL(statement).format(**names), name)
        at(RebuildWindow.SWITCHING)
    return events


def _ready(connection: Connection, projection: Projection, names: dict[str, sql.Identifier]) -> bool:
    row = connection.execute(sql.SQL(READY).format(**names), [projection.name]).fetchone()
    return row is None or bool(row[0])  # no row: nothing is live yet
