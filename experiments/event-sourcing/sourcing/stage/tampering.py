"""What the role of a program may do to the past, what the owner of the table may, and what a clock may."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from shared.postgres import Connection

ATTACKS = "update events set data = '{}'", "delete from events", "truncate events"
FORGERY = """
update events set data = convert_to(replace(convert_from(data, 'utf8'), '"cents":', '"cents":9'), 'utf8')
where type = 'Deposited'
"""
# As if the clock had been set back by an hour before the third event of every stream.
SET_BACK = "update events set recorded_at = recorded_at - interval '1 hour' where version > 2"
GRANTS = (
    "create role {0}",
    "grant usage on schema {1} to {0}",
    "grant select, insert on events to {0}",
    "grant select on stream_metadata to {0}",
    "set role {0}",
)


@contextmanager
def application_role(connection: Connection, schema: str) -> Iterator[None]:
    """The session as the role that a program should have; roles are not of a schema, so it is dropped here."""
    role = sql.Identifier(f"{schema}_app")
    for grant in GRANTS:
        connection.execute(sql.SQL(grant).format(role, sql.Identifier(schema)))
    try:
        yield
    finally:
        connection.execute("reset role")
        connection.execute(sql.SQL("drop owned by {0}").format(role))
        connection.execute(sql.SQL("drop role {0}").format(role))


def is_refused(connection: Connection, attack: str) -> bool:
    try:
        connection.execute(attack)
    except InsufficientPrivilege:
        return True
    return False
