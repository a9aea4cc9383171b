-- What a service of the choreography keeps beside its own tables, and beside its place in the topics
-- (saga.transport.OFFSETS). All of it changes in the transaction of the effect.

-- The services of the shop have it already (services/schema.sql); one that is added later has not.
create table if not exists outbox (
    position bigint generated always as identity primary key,
    topic    text not null,
    key      text not null,
    value    bytea not null,
    headers  bytea not null default '{}',   -- JSON: name -> base64
    sent_at  timestamptz
);
create index if not exists outbox_unsent on outbox (position) where sent_at is null;

create table if not exists saga_states (
    saga text primary key,
    said text not null,                     -- the last that this service said about it: its state
    at   timestamptz not null default clock_timestamp()
);
create table if not exists handled (event_id text primary key);   -- so that the same event, again, does nothing
-- Events that could not be handled: tried again when they are due, or, without a time, when an operator says so.
create table if not exists held (
    place    text primary key,              -- topic/partition/offset
    saga     text not null,                 -- as far as the message tells
    key      bytea,
    value    bytea,
    headers  bytea not null,
    attempts int not null default 1,
    due      timestamptz,
    reason   text not null
);
create index if not exists held_due on held (due) where due is not null;
