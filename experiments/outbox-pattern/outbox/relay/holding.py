"""One cursor relay of a name, and no second one: two with one checkpoint would publish everything twice, out of order.

A row lock would last as long as a transaction, and a transaction that is open while the broker is waited for holds the
reading back. An advisory lock of the session lasts as long as the relay's session: it needs no transaction, dies with
the relay, and is in no table that a restore could bring back. (PostgreSQL documentation, "Advisory Locks".) A pooler
that gives one session to several clients makes it worthless: relays connect to Postgres itself.
"""

from shared.errors import DeadlineExceeded, LabError
from shared.postgres import Connection
from shared.wait import until

PATIENCE = 10.0  # seconds: Postgres may not have noticed yet that the last one was killed
# Known by the table of the checkpoint, and so by the schema, and by the relay's name.
_KEY = "'outbox_checkpoint'::regclass::oid::int, hashtext(%s)"
LOCK = f"select pg_try_advisory_lock({_KEY})"
UNLOCK = f"select pg_advisory_unlock({_KEY})"
HOLDER = """
select pid, coalesce(nullif(application_name, ''), 'a program without a name'), coalesce(client_addr::text, 'a socket')
from pg_locks join pg_database on database = pg_database.oid join pg_stat_activity using (pid)
where pg_database.datname = current_database() and locktype = 'advisory' and granted and objsubid = 2
  and (classid::int, objid::int) = ('outbox_checkpoint'::regclass::oid::int, hashtext(%s))
"""


def hold(connection: Connection, name: str, patience: float = PATIENCE) -> None:
    """Be the one cursor relay of this name until the session ends, or `let_go`.

    Raises LabError, naming the session of the other one, where it is still at work after `patience` seconds.
    """
    try:
        until("the lock", lambda: (connection.execute(LOCK, [name]).fetchone() or [False])[0], patience)
    except DeadlineExceeded:
        raise LabError(f"there is a cursor relay {name!r} already: {_holder(connection, name)}") from None


def let_go(connection: Connection, name: str) -> None:
    """Let another one in, where the session goes on."""
    connection.execute(UNLOCK, [name])


def _holder(connection: Connection, name: str) -> str:
    row = connection.execute(HOLDER, [name]).fetchone()
    return "session {} of {} at {}".format(*row) if row else "it has just gone"
