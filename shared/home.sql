-- What a table needs whose rows are read in the order of the transactions that wrote them, so that it can be moved into
-- another cluster: by a dump and its restore, by logical replication, by pg_upgrade. To copy it, put your table's name
-- for {table}; its columns are `xid xid8` and `position`, an identity.
--
-- Transaction ids mean nothing outside the cluster that gave them out. In a fresh one they begin at some hundreds: what
-- is written there would be read before all history, or never. So a row's number is the id of its transaction and what
-- the table has been moved by, which is 0 where it was made. Adopting it in another cluster makes that sum the next
-- multiple of 2^44: so every number from then on lies above those that are there, and above all that a checkpoint or a
-- snapshot of before may hold, also where the rows of that time are gone. (2^44 transactions are 55 years at 10,000 a
-- second.) They stay as they are, and every checkpoint stays valid.

create table if not exists {table}_homes (           -- one row; a second one came with rows of another cluster
    system_identifier bigint not null,               -- of the cluster that the table was made or adopted in
    moved             bigint not null,               -- what is added to its transaction ids
    adopted_at        timestamptz not null default clock_timestamp()
);

-- Whether this session's cluster is the one that the table was adopted in, and no row is of a transaction yet to come (as
-- after a restore of the data alone). Raises an exception where not. Asked once a session, which notes it in a setting.
create or replace function {table}_here(home bigint, relation oid, moved bigint) returns boolean
language plpgsql stable security definer set search_path = pg_catalog as $$
declare
    ahead boolean;
begin
    if home = (select system_identifier from pg_control_system()) and exists (select from pg_class where oid = relation)
    then
        execute format('select xid >= $1 from %s order by xid desc limit 1', relation::regclass) into ahead
        using (moved + greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                                pg_current_xact_id_if_assigned()::text::bigint + 1))::text::xid8;
        if ahead is not true then
            perform set_config('{table}.home', home || ':' || relation, false);
            return true;
        end if;
    end if;
    raise exception using errcode = 'object_not_in_prerequisite_state', message =
        'the rows of {table} have come from another cluster, whose transaction ids are not those of this one: '
        'run `{command} adopt` first';
end $$;

-- Take the table over: what is there stays as it is and comes first, what is written from now on comes after it. Nobody
-- writes meanwhile. Running it again changes nothing.
create or replace function {table}_adopt(
    out came_from bigint, out home bigint, out newest bigint, out moved_before bigint, out moved_now bigint
) language plpgsql as $$
declare
    relation regclass := '{table}';
    place text := (select relnamespace::regnamespace from pg_class where oid = relation);
    sequence text := pg_get_serial_sequence('{table}', 'position');
    last_position bigint;
    now pg_snapshot;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'adopt under read committed: an older snapshot does not show what was written last';
    end if;
    lock table {table} in share row exclusive mode;  -- no writer beside this, nor another adoption
    now := pg_current_snapshot();
    select system_identifier into home from pg_control_system();
    select min(system_identifier) filter (where system_identifier <> home), coalesce(max(moved), 0)
    into came_from, moved_before from {table}_homes;
    newest := coalesce((select xid::text::bigint from {table} order by xid desc limit 1), 0);
    moved_now := moved_before;
    if came_from is not null or newest - moved_before >= pg_snapshot_xmax(now)::text::bigint then
        moved_now := ((greatest(moved_before, newest) >> 44) + 1) << 44;
    end if;
    delete from {table}_homes;
    insert into {table}_homes (system_identifier, moved) values (home, moved_now);
    -- The setting is a look into memory, the function is inlined: neither costs an insert anything to be measured.
    execute format(
        'create or replace function %1$s.{table}_xid(xid8) returns xid8 language sql stable return case when '
        'current_setting(''{table}.home'', true) = %2$L or %1$s.{table}_here(%3$s, %4$s, %5$s) then %6$s end',
        place, home || ':' || relation::oid, home, relation::oid, moved_now,
        case when moved_now = 0 then '$1' else format('($1::text::bigint + %s)::text::xid8', moved_now) end);
    if (select pg_get_expr(adbin, adrelid) from pg_attrdef join pg_attribute on attrelid = adrelid and attnum = adnum
        where adrelid = relation and attname = 'xid') is distinct from '{table}_xid(pg_current_xact_id())' then
        execute format('alter table {table} alter xid set default %s.{table}_xid(pg_current_xact_id())', place);
    end if;
    -- A restore of the data alone leaves the sequence behind, or at 1.
    last_position := (select max(position) from {table});
    if last_position > coalesce(pg_sequence_last_value(sequence), 0) then
        perform setval(sequence, last_position);
    end if;
end $$;
