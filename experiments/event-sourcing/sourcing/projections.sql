-- What projections need beside their read models. Copy it as it is, into the database of the read models.

-- How far each projection has read. Written in the transaction of the read model, and only there.
create table checkpoints (
    projection text primary key,
    version    int not null,          -- of the projection's tables and code: another program must not write to them
    xid        xid8 not null,         -- (xid, position) of the last event that is in the read model, or parked
    position   bigint not null,
    last_stream  text collate "C",    -- and which one that is: another one may have its place after a restore
    last_version bigint,
    last_id      uuid,
    updated_at timestamptz not null default clock_timestamp()
);

-- Events that a projection could not handle, whole, and those of the same stream after them.
create table parked_events (
    projection     text not null,
    stream         text collate "C" not null,
    version        bigint not null,
    type           text not null,
    schema_version int not null,
    id             uuid not null,
    data           bytea not null,
    metadata       bytea not null,
    xid            xid8 not null,
    position       bigint not null,
    recorded_at    timestamptz not null,
    reason         text not null,
    attempts       int not null default 1,
    parked_at      timestamptz not null default clock_timestamp(),
    primary key (projection, stream, version)
);
