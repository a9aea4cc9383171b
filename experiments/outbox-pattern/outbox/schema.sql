-- The business table of the shop, and the outbox beside it. Both in one database: that is the whole trick.

create table order_steps (
    order_id text not null,
    number   bigint not null check (number > 0),
    status   text not null,
    cents    bigint not null check (cents > 0),
    primary key (order_id, number)
);

create table outbox (
    position       bigint generated always as identity primary key,
    xid            xid8 not null default pg_current_xact_id(),
    id             uuid not null unique,          -- the event's id; what consumers know a duplicate by
    aggregate_type text not null,                 -- says the topic
    aggregate_id   text not null,                 -- the key, so that one aggregate's events stay in order
    sequence       bigint not null,               -- the event's number within its aggregate
    spec_version   text not null default '1.0',   -- of CloudEvents; a column, since Debezium makes headers of columns
    type           text not null,
    source         text not null,
    time           timestamptz not null,
    correlation_id text not null default '',
    causation_id   text not null default '',
    content_type   text not null,
    payload        bytea not null,                -- the bytes that are published, as they are: jsonb would rewrite them
    published_at   timestamptz                    -- delivery tracking, by relays that mark
);

-- A relay looks for what is not published: an index as small as the backlog, however long the table.
create index outbox_pending on outbox (position) where published_at is null;
