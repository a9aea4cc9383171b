"""The guard of an outbox that Debezium reads: bad rows are parked as they are inserted. To be copied: guard.sql.

The Python relays need none: they park what they cannot publish, and know what only the broker knows.
"""

from collections.abc import Iterable
from pathlib import Path

from shared.postgres import Connection

GUARD = Path(__file__).with_name("guard.sql")
ROUTE = """
insert into outbox_routes (aggregate_type, max_bytes) select unnest(%s::text[]), %s
on conflict (aggregate_type) do update set max_bytes = excluded.max_bytes
"""
MAX_BYTES = 1_000_000  # of a message; under the million and some that Connect's producer and the broker take


def install(connection: Connection, aggregate_types: Iterable[str] = ()) -> None:
    """Put the guard on the outbox in the first schema of the search path; rows of these aggregate types may pass."""
    with connection.transaction():
        connection.execute(GUARD.read_text())
        add_routes(connection, aggregate_types)


def add_routes(connection: Connection, aggregate_types: Iterable[str], max_bytes: int = MAX_BYTES) -> None:
    """Let rows of these aggregate types pass; again: change their limit. Their topics must exist, nobody here looks.

    Raises psycopg.errors.CheckViolation for one that cannot be a topic's name.
    """
    connection.execute(ROUTE, [list(aggregate_types), max_bytes])
