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

-- What follows is the rule of shared/codec.py and shared/attributes.py again, which relays and consumers go by, as far as
-- a database can tell; a test puts the same rows to all of them. E'' has two backslashes for one, whatever is set.

-- JSON without the strings in it: brackets, numbers and words. Backslashes are in strings only.
create function outbox_json_outside(document text) returns text language sql immutable as $$
    select string_agg(part, ' ') from string_to_table(replace(replace(document, E'\\\\', ''), E'\\"', ''), '"')
        with ordinality as parts (part, number) where number % 2 = 1
$$;

-- Whether valid JSON is nested deeper than 64: each turn takes away the innermost level.
create function outbox_json_is_deep(document text) returns boolean language plpgsql immutable as $$
declare
    brackets text := translate(regexp_replace(outbox_json_outside(document), '[^][{}]+', '', 'g'), '{}', '[]');
begin
    for level in 1..64 loop
        exit when brackets = '';
        brackets := replace(brackets, '[]', '');
    end loop;
    return brackets <> '';
end $$;

-- Whether a number is more than a double holds, or a whole one that is written in more characters than are read (4,300).
-- No cast would do, since that of a small one, 1e-400, fails too. It is 0.`digits` times 10 to the `magnitude`.
create function outbox_number_is_out_of_range(number text) returns boolean language sql immutable as $$
    with parts as (
        select translate(split_part(lower(number), 'e', 1), '-.', '') as mantissa,
               length(split_part(split_part(ltrim(lower(number), '-'), 'e', 1), '.', 1)) as whole,
               coalesce(nullif(split_part(lower(number), 'e', 2), ''), '0')::numeric as exponent
    ), scaled as (
        select ltrim(mantissa, '0') as digits,
               whole + exponent - length(mantissa) + length(ltrim(mantissa, '0')) as magnitude
        from parts
    )
    select case
        when number !~ '[.eE]' then length(number) > 4300
        when digits = '' or magnitude < 309 then false
        when magnitude > 309 then true
        -- Halfway between the largest double and the next one, which is none.
        else rpad(left(digits, 309), 309, '0')::numeric >= 2::numeric ^ 1024 - 2::numeric ^ 970
    end from scaled
$$;

-- Why a payload is no JSON that every reader reads; null when it is. Type json, not jsonb: it follows RFC 8259 and keeps to
-- syntax, so "\u0000" and a doubled name pass. Without bytes there are no data, which an event may do without.
create function outbox_json_problem(payload bytea) returns text language plpgsql immutable as $$
declare
    prefix constant text := 'the content type says JSON, the payload is not: ';
    document text;
    detail   text;
begin
    if octet_length(payload) = 0 then
        return null;
    end if;
    begin
        document := convert_from(payload, 'UTF8');
    exception when untranslatable_character then
        -- UTF-8, with characters that the database's own encoding lacks. They stand in strings: any other ones would do.
        document := convert_from(payload, getdatabaseencoding());
    end;
    perform document::json;
    if document like E'%\\\\u%' and regexp_replace(replace(document, E'\\\\', ' '),
            E'\\\\u[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F]', ' ', 'g') ~ E'\\\\u[dD][89a-fA-F]' then
        return prefix || 'it holds half of a surrogate pair';
    elsif 2 * length(document) - length(replace(document, '[', '')) - length(replace(document, '{', '')) > 64
            and outbox_json_is_deep(document) then
        return prefix || 'it is nested more than 64 deep';
    elsif document ~ '[0-9]{200}|[0-9][eE][+]?[0-9]{3}' and exists (
        select from regexp_matches(outbox_json_outside(document), '-?[0-9]+(?:[.][0-9]+)?(?:[eE][-+]?[0-9]+)?', 'g')
            as found (number) where outbox_number_is_out_of_range(number[1])
    ) then
        return prefix || 'it holds a number that is out of range';
    end if;
    return null;
exception when data_exception or statement_too_complex then
    get stacked diagnostics detail = pg_exception_detail;
    return prefix || concat_ws(': ', sqlerrm, nullif(detail, ''));
end $$;

-- What no attribute may hold (CloudEvents 1.0.2, "Type System"): control characters and noncharacters, as a pattern.
create function outbox_forbidden() returns text language sql immutable as $$
    select E'[\\u0001-\\u001F\\u007F-\\u009F\\uFDD0-\\uFDEF\\uFFFE\\uFFFF'
        || string_agg(format(E'\\U%s%s\\U%s%s', plane, 'FFFE', plane, 'FFFF'), '') || ']'
    from (select lpad(to_hex(number), 4, '0') from generate_series(1, 16) as number) as planes (plane)
$$;

-- Writers may have another search path. They may read backslashes in the old way, too: hence E'...' throughout.
create function outbox_guard() returns trigger language plpgsql
set search_path from current as $$
declare
    missing  text := concat_ws(', ',
        case when new.aggregate_type = '' then 'aggregate_type' end, case when new.aggregate_id = '' then 'aggregate_id' end,
        case when new.type = '' then 'type' end, case when new.source = '' then 'source' end);
    words    text := concat(new.aggregate_id, new.type, new.source, new.time, new.correlation_id, new.causation_id,
        new.content_type, new.spec_version);
    -- Key, value and headers: the key is a header, too; 300 bytes are the headers' names and what has a fixed length.
    size     bigint := octet_length(new.payload) + 300 + octet_length(new.aggregate_id) + octet_length(words);
    route    bigint := (select max_bytes from outbox_routes where aggregate_type = new.aggregate_type);
    problem  text;
begin
    if missing <> '' then
        problem := 'missing: ' || missing;
    elsif route is null then
        problem := format('there is no route for %L: add it to outbox_routes when its topic is there', new.aggregate_type);
    elsif size > route then
        problem := format('too large: %s bytes as a message, its route takes %s', size, route);
    elsif words ~ outbox_forbidden() then
        problem := 'an attribute holds a character that CloudEvents forbids';
    elsif new.spec_version <> '1.0' then
        problem := format('specversion: is %L, and not 1.0', new.spec_version);
    elsif new.sequence < 0 then
        problem := format('aggregateversion: is %s, and less than 0', new.sequence);
    -- RFC 3339, without leap seconds.
    elsif new.time !~ ('^[0-9]{4}(-[0-9]{2}){2}[Tt]([01][0-9]|2[0-3])(:[0-5][0-9]){2}([.][0-9]+)?'
                || '(Z|z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])$')
            or not pg_input_is_valid(left(new.time, 10), 'date') then
        problem := format('time: %L is no time of RFC 3339', new.time);
    elsif new.content_type collate "C" ~* '^application/cloudevents' then
        problem := format('datacontenttype: is %L, which says that the whole event is in the value', new.content_type);
    -- No content type means JSON (CloudEvents 1.0.2, datacontenttype).
    elsif new.content_type collate "C" ~* '^([^/;]+/([^/;]+[+])?json *(;.*)?)?$' then
        problem := outbox_json_problem(new.payload);
    end if;
    if problem is null then
        return new;
    end if;
    insert into outbox_parked select new.*, problem;
    return null;
end $$;

create trigger outbox_guard before insert on outbox for each row execute function outbox_guard();
