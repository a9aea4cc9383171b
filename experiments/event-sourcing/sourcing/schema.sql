-- The event store: one table that is only ever appended to. Copy it as it is, with shared/home.sql, which makes the
-- numbers of transactions good for more than one cluster: `events_xid` is there.

create table events (
    position       bigint generated always as identity,          -- drawn before the commit: never read by it alone
    xid            xid8 not null default pg_current_xact_id(),   -- its number: (xid, position) is an order in which no event comes late
    stream         text collate "C" not null,                    -- one stream per aggregate
    version        bigint not null check (version > 0),          -- 1, 2, 3 ... without a gap within the stream
    type           text not null,
    schema_version int not null,                                 -- of the data, for the upcasters
    id             uuid not null,                                -- what a writer knows its own append by, after a lost answer
    data           bytea not null,                               -- JSON, the bytes that were written: jsonb would rewrite them
    metadata       bytea not null,                               -- JSON: who, why, correlation and causation
    recorded_at    timestamptz not null default clock_timestamp(),
    primary key (stream, version)                                -- two writers cannot both write the next version
);
create index events_order on events (xid, position);
create index events_tombstones on events (stream) where type = '$deleted';

-- Streams of which something else than their events is known. Most have no row here.
create table stream_metadata (
    stream         text collate "C" primary key,
    truncate_before bigint not null default 1,                   -- events below this version are not read, and scavenged
    custom         bytea not null default '{}'                   -- JSON, the application's own
);

-- The events as people read them.
create view events_readable as
select position, stream, version, type, schema_version, convert_from(data, 'utf8') as data,
       convert_from(metadata, 'utf8') as metadata, recorded_at, id
from events;
