"""The alarm: which open transaction holds all readers of the events back.

`read_all` waits for every transaction that has written anything, in whatever database of the cluster (see postgres.py).
One that stays open is found here, with who has it open and for how long: alarm on `seconds`.
"""

from typing import NamedTuple

from psycopg.rows import class_row

from shared.postgres import Connection


class HoldingBack(NamedTuple):
    """An open transaction that has written: every reader waits for the oldest one, in whatever database it is."""

    pid: int | None  # none for a prepared transaction, which has no session
    database: str
    application: str
    state: str
    seconds: float  # since it began
    query: str


# A transaction that only reads has no xid and holds no reader back. Seen in full by superusers and pg_monitor only.
OLDEST = """
select pid, datname as database, application_name as application, state,
       extract(epoch from clock_timestamp() - xact_start)::float8 as seconds, query
from (
    select pid, datname, application_name, state, xact_start, query, backend_xid as xid from pg_stat_activity
    union all
    select null, database, gid, 'prepared', prepared, '', transaction from pg_prepared_xacts
) as open
where xid is not null order by age(xid) desc limit 1
"""


def oldest_writer(connection: Connection) -> HoldingBack | None:
    """The culprit, for an alarm on `seconds`; None where nothing is held back."""
    return connection.cursor(row_factory=class_row(HoldingBack)).execute(OLDEST).fetchone()
