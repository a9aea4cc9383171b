"""WRONG where anybody reads: a read model that is emptied and filled again, before people's eyes."""

from psycopg import sql

from shared.postgres import Connection
from sourcing.projection import Projection


def start_again(connection: Connection, projection: Projection) -> None:
    """Empty the live tables and begin at the first event again: people watch them fill."""
    with connection.transaction():
        fresh = "update checkpoints set xid = '0', position = 0, last_id = null where projection = %s"
        connection.execute(fresh, [projection.name])
        connection.execute("delete from parked_events where projection = %s", [projection.name])
        for table in projection.tables:
            connection.execute(sql.SQL("truncate {}").format(sql.Identifier(table)))
