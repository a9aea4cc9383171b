-- The four services, each in a schema of its own: none can see into another. In each, what every service needs first.

-- {{every service}}
create table inbox (
    request_id  text primary key,          -- the idempotency key of a command
    reply       bytea not null,            -- and the answer that was given to it: the same again, whenever it comes
    answered_at timestamptz not null default clock_timestamp()
);
create table outbox (
    position bigint generated always as identity primary key,
    topic    text not null,
    key      text not null,
    value    bytea not null,
    headers  bytea not null default '{}',
    sent_at  timestamptz
);
create index outbox_unsent on outbox (position) where sent_at is null;

-- {{orders}}
create table orders (
    id text primary key, customer text not null, product text not null, quantity int not null, cents bigint not null,
    status text not null check (status in ('placed', 'cancelled'))
);

-- {{stock}}
create table products (name text primary key, pieces bigint not null check (pieces >= 0));
create table reservations (
    order_id text primary key, product text not null, quantity int not null,
    status text not null check (status in ('reserved', 'released'))
);

-- {{payments}}
create table accounts (customer text primary key, cents bigint not null check (cents >= 0));
create table charges (
    order_id text primary key, customer text not null, cents bigint not null, charged int not null default 1,
    refunded int not null default 0, status text not null check (status in ('charged', 'refunded'))
);

-- {{shipping}}
create table shipments (
    order_id text primary key, status text not null check (status in ('shipped', 'recalled'))
);
