"""The write with psycopg, ready to use: pipelined, so that the event costs no round trip.

Insert the event when the transaction has its aggregate's lock: behind the UPDATE of the aggregate's row, or the insert
of its next step, as here. The event has its place from its insert on. Where it is inserted before the lock, another
service may change the aggregate in between, and have the later place with the earlier number. Relays that read the
table then publish the two the wrong way round. The log's relay has them in the order of commits, but sends what was
inserted: made before the aggregate's state was certain, without the number that is known under the lock. (08_ordering)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from outbox.table import INSERT_EVENT, INSERT_STEP, outbox_values, step_values
from shared.event import Event
from shared.postgres import Connection


def place_pipelined(connection: Connection, event: Event, aggregate_type: str) -> None:
    """One step of an order and its event: begin, two inserts and commit in a single round trip.

    Raises psycopg.IntegrityError when the business row is refused; nothing is written then.
    """
    with one_round_trip(connection) as cursor:
        cursor.execute(INSERT_STEP, step_values(event), prepare=True)
        # Its values are made while the server is busy with the row.
        cursor.execute(INSERT_EVENT, outbox_values(event, aggregate_type), prepare=True)


@contextmanager
def one_round_trip(connection: Connection) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
    """A transaction whose statements, begin and commit included, are sent without waiting for an answer.

    What the server refuses is raised at the end, and nothing is written then. Raises psycopg.ProgrammingError when a
    transaction is open.
    """
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise psycopg.ProgrammingError("the connection is in a transaction, which this would commit")
    try:
        # Not `connection.transaction()`: in a pipeline it waits for the server as it begins and as it ends.
        with connection.pipeline(), connection.cursor() as cursor:
            cursor.execute("begin")
            yield cursor
            cursor.execute("commit")
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
