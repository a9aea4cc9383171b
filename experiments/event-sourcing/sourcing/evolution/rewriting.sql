-- Beside the tables of an event store whose events were rewritten from another one.

create table rewriting (                                         -- one row: how far the rewriting is
    only_one boolean primary key default true check (only_one),
    xid      bigint not null default 0,                          -- the place of the last event that was read
    position bigint not null default 0
);
insert into rewriting default values;

-- The origin of every event here, and what became of every event there.
create table rewritten (
    stream         text collate "C" not null,                    -- the same here and there
    version        bigint not null,                              -- there
    type           text not null,                                -- there
    schema_version int not null,                                 -- there
    first          bigint not null,                              -- the version here of the first event that it became
    number         int not null check (number >= 0),             -- how many it became; 0: dropped
    primary key (stream, version)
);
