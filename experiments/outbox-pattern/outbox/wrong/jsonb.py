"""WRONG: a payload in a column of jsonb, which keeps what it says and not its bytes."""

from shared.postgres import connect


def create_jsonb_copy(conninfo: str) -> None:
    """WRONG on purpose: a table `outbox_jsonb` that gets every outbox row with its payload parsed (see 03)."""
    with connect(conninfo) as connection:
        connection.execute(JSONB_COPY)


JSONB_COPY = """
create table outbox_jsonb (like outbox);
alter table outbox_jsonb alter column payload type jsonb using convert_from(payload, 'utf8')::jsonb;
create function copy_as_jsonb() returns trigger language plpgsql as $$
begin
    insert into outbox_jsonb values (new.xid, new.position, new.created_at, null, new.aggregate_type, new.aggregate_id,
        convert_from(new.payload, 'utf8')::jsonb, new.id, new.type, new.source, new.sequence, new.time,
        new.correlation_id, new.causation_id, new.content_type, new.spec_version, new.route);
    return null;
end $$;
create trigger copy_as_jsonb after insert on outbox for each row execute function copy_as_jsonb();
"""
