"""WRONG under load: NOTIFY in the transaction that writes the event."""

from shared.postgres import connect

TRIGGER = """
create function ring_outbox() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox_' || tg_table_schema, '');
    return null;
end $$;
create trigger ring_outbox after insert on outbox for each statement execute function ring_outbox();
"""


def ring_in_transaction(conninfo: str) -> None:
    """WRONG under load: a trigger that notifies in every transaction that writes an event."""
    with connect(conninfo) as connection:
        connection.execute(TRIGGER)
