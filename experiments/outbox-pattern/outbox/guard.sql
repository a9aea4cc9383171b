-- The guard of an outbox that Debezium reads. Debezium parks nothing: a record that the broker refuses fails its task for
-- good, since the row stays in the log even when it is deleted from the table; what is no event goes to the consumers.
-- So a bad row is diverted as it is inserted: the business transaction commits, the row goes to outbox_parked with its
-- reason, and never reaches the log of the published table.
--
-- To be run after schema.sql, in the same schema. Writers also need INSERT on outbox_parked and SELECT on outbox_routes.
-- Whoever would rather have the business transaction fail raises an exception where the row is parked.
--
-- It judges by what the database knows. That a topic is gone, or that the broker's limit is lower than the route's, it
-- cannot see: those still fail the task.

-- The aggregate types that have a topic. An operator adds a row when the topic is there, and then retries what is parked.
create table outbox_routes (
    aggregate_type text primary key check (aggregate_type ~ '^[A-Za-z0-9._-]{1,249}$' and aggregate_type not in ('.', '..')),
    -- Of the whole message. Kafka Connect's producer refuses more than 1,048,576 (max.request.size), a broker more than
    -- 1,048,588 (max.message.bytes); its own counting of headers needs some room.
    max_bytes bigint not null default 1000000 check (max_bytes > 0)
);

-- Why a payload is no JSON; null when it is. Type json, not jsonb: it follows RFC 8259 and keeps to syntax. "\u0000",
-- a lone surrogate, a doubled name and numbers of any size are JSON, and pass, though jsonb would refuse the first two.
-- A byte 0x00 and bytes that are no UTF-8 are not; nesting so deep that it cannot be checked (max_stack_depth) is refused.
create function outbox_json_problem(payload bytea) returns text language plpgsql immutable as $$
declare
    detail text;
begin
    begin
        perform convert_from(payload, 'UTF8')::json;
    exception when untranslatable_character then
        -- UTF-8, with characters that the database's own encoding lacks. They stand in strings: any other ones would do.
        perform convert_from(payload, getdatabaseencoding())::json;
    end;
    return null;
exception when data_exception or statement_too_complex then
    get stacked diagnostics detail = pg_exception_detail;
    return concat_ws(': ', 'the content type says JSON, the payload is not', sqlerrm, nullif(detail, ''));
end $$;

-- Writers may have another search path, and another way to read a backslash.
create function outbox_guard() returns trigger language plpgsql
set search_path from current set standard_conforming_strings = on as $$
declare
    missing  text := concat_ws(', ',
        case when new.aggregate_type = '' then 'aggregate_type' end, case when new.aggregate_id = '' then 'aggregate_id' end,
        case when new.type = '' then 'type' end, case when new.source = '' then 'source' end);
    -- Key, value and headers: the key is a header, too; 300 bytes are the headers' names and what has a fixed length.
    size     bigint := octet_length(new.payload) + 300 + octet_length(concat(new.aggregate_id, new.aggregate_id, new.type,
        new.source, new.time, new.correlation_id, new.causation_id, new.content_type, new.spec_version));
    route    bigint := (select max_bytes from outbox_routes where aggregate_type = new.aggregate_type);
    problem  text;
begin
    if missing <> '' then
        problem := 'missing: ' || missing;
    elsif route is null then
        problem := format('there is no route for %L: add it to outbox_routes when its topic is there', new.aggregate_type);
    elsif size > route then
        problem := format('too large: %s bytes as a message, its route takes %s', size, route);
    -- No content type means JSON (CloudEvents 1.0.2, datacontenttype).
    elsif new.content_type ~ '^((application|text)/([\w.-]+\+)?json(;.*)?)?$' then
        problem := outbox_json_problem(new.payload);
    end if;
    if problem is null then
        return new;
    end if;
    insert into outbox_parked select new.*, problem;
    return null;
end $$;

create trigger outbox_guard before insert on outbox for each row execute function outbox_guard();
