-- States to begin a fold from: the newest of each stream. A cache: truncate it at any time, loads only take longer.

create table snapshots (
    stream        text collate "C" primary key,                  -- one row a stream: old ones are of no use to a load
    version       bigint not null check (version > 0),           -- of the last event that the state has in it
    event_id      uuid not null,                                 -- that very event: another one may have its version one day
    state_version int not null,                                  -- of the state's shape and of the rules that made it
    state         bytea not null,                                -- JSON
    taken_at      timestamptz not null default clock_timestamp()
);
