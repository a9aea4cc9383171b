-- What the orchestrator knows. A saga's row is also its outbox: it says which command is to be sent, and by whom.

create table definitions (
    name text not null, version int not null, body bytea not null,   -- JSON; never changed
    primary key (name, version)
);
create table sagas (
    id         text primary key,
    definition text not null,
    version    int not null,
    payload    bytea not null,              -- the order as it came: JSON
    status     text not null check (status in ('running', 'compensating', 'completed', 'compensated', 'parked')),
    step       int not null,                -- number of the step, from 0, that is being done or being undone
    undoing    boolean not null,
    attempt    int not null,                -- how often the current command was asked
    waiting    boolean not null,            -- for its answer; else for the time of the next attempt
    due        timestamptz,                 -- when something has to be done unless something happens before
    deadline   timestamptz not null,        -- of the steps
    asked      text not null,               -- all that was ever asked, in this order, with blanks between
    reason     text not null,               -- of the compensation, or of the wait for an operator
    asker      int not null,                -- the worker that sends the command, and again when it starts anew
    started_at timestamptz not null default clock_timestamp(),
    ended_at   timestamptz,                 -- or was parked
    check (status not in ('running', 'compensating') or due is not null)
) with (fillfactor = 70);
create index sagas_due on sagas (due) where due is not null;   -- those that move, however many have ended
create table saga_log (
    position bigint generated always as identity primary key,
    saga     text not null,
    at       timestamptz not null default clock_timestamp(),
    note     text not null
);
create index saga_log_saga on saga_log (saga, position);
