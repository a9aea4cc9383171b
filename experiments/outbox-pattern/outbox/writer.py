"""The write with psycopg, ready to use: pipelined, so that the event costs no round trip."""

import psycopg
from psycopg.pq import TransactionStatus

from outbox.table import INSERT_EVENT, INSERT_STEP, outbox_values
from shared.event import Event
from shared.postgres import Connection


def place_pipelined(connection: Connection, event: Event, aggregate_type: str) -> None:
    """One step of an order and its event: begin, two inserts and commit in a single round trip.

    Raises psycopg.IntegrityError when the business row is refused; nothing is written then.
    """
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise psycopg.ProgrammingError("the connection is in a transaction, which this would commit")
    status = event.type.rpartition(".")[2]
    try:
        # Not `connection.transaction()`: in a pipeline it waits for the server as it begins and as it ends.
        with connection.pipeline(), connection.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute(INSERT_STEP, [event.subject, event.sequence, status, event.data["cents"]], prepare=True)
            cursor.execute(INSERT_EVENT, outbox_values(event, aggregate_type), prepare=True)
            cursor.execute("commit")
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
