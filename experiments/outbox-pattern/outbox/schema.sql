-- The business table of the shop, and the outbox beside it. Both in one database: that is the whole trick. Copy it with
-- shared/home.sql, which makes the numbers of transactions good for more than one cluster: `outbox_xid` is there.

create table order_steps (
    order_id text not null,
    number   bigint not null check (number > 0),
    status   text not null,
    cents    bigint not null check (cents > 0),
    primary key (order_id, number)
);

-- Partitioned by time: what is published is dropped with its partition, which costs nothing, and never deleted row by row.
-- All attributes are text as CloudEvents have it, so that every relay, Debezium included, passes them on as they are.
-- The defaults let a row be written by hand; what is missing is found by the relay, which parks the row with the reason.
create table outbox (
    -- Its number, by which a snapshot knows whether it is visible. Before `position`, since values are drawn in the order
    -- of columns: who has a position has a transaction id, too, and is known to be at work (see relay/reading.py).
    xid            xid8 not null default pg_current_xact_id(),
    position       bigint generated always as identity,
    created_at     timestamptz not null default now(),
    published_at   timestamptz,                                  -- delivery tracking, by relays that mark
    aggregate_type text not null default '',                     -- says the topic
    aggregate_id   text not null default '',                     -- the key, so that one aggregate's events stay in order
    payload        bytea not null default '',                    -- the bytes that are published: jsonb would rewrite them
    id             uuid not null default gen_random_uuid(),      -- what consumers know a duplicate by
    type           text not null default '',
    source         text not null default '',
    sequence       bigint not null default 0,                    -- the event's number within its aggregate; 0: it has none
    time           text not null default to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    correlation_id text not null default '',
    causation_id   text not null default '',
    content_type   text not null default 'application/json',
    spec_version   text not null default '1.0',                  -- a column, since Debezium makes headers of columns
    -- For Debezium: the topic, and the headers that the event does without. Its router would send them empty (see
    -- relay/debezium.py). Publications know generated columns since Postgres 18; before it, have a trigger write it.
    route          text generated always as (aggregate_type
                       || case sequence when 0 then '~aggregateversion' else '' end
                       || case correlation_id when '' then '~correlationid' else '' end
                       || case causation_id when '' then '~causationid' else '' end
                       || case content_type when '' then '~contenttype' else '' end) stored
) partition by range (created_at);

-- Rows for which nobody has made a partition: an insert is never refused for want of one (see operating/partitions.py).
create table outbox_default partition of outbox default;

-- For the cursor: what transactions have written that ended late; and, as well as for relays that mark, what lies behind
-- a position.
create index outbox_order on outbox (xid, position);
create index outbox_pending on outbox (position) where published_at is null;

-- How far a cursor has come: see relay/reading.py.
create table outbox_checkpoint (
    relay    text primary key,
    previous pg_snapshot not null default '1:1:',                -- what it sees is published, or parked
    current  pg_snapshot,                                        -- the window that is being read; null: none is
    passed   bigint not null default 0,                          -- the highest position of all windows before
    position bigint not null default 0,                          -- of the last row that was read
    id       uuid                                                -- of that row; null: there is none
);

-- What cannot be published, where an operator finds it: lab outbox parked | retry | discard.
create table outbox_parked (like outbox, reason text not null, parked_at timestamptz not null default clock_timestamp());
