-- The vault: one data key per person. Best kept in a database of its own, whose backups live shorter than the events'.

create table vault_keys (
    subject      text collate "C" primary key,    -- a pseudonym, such as customer-17: it stays in the events for good
    wrapped      bytea,                           -- the data key under the master key; null: forgotten
    master       bytea not null,                  -- fingerprint of the master key that wrapped it
    created_at   timestamptz not null default clock_timestamp(),
    forgotten_at timestamptz,
    reason       text not null default '',        -- why it was forgotten: a code or a ticket, never the person's data
    check ((wrapped is null) = (forgotten_at is not null))
);
