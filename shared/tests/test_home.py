"""A table whose rows are read in the order of their transactions, moved into a cluster whose ids are lower."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from psycopg.errors import ObjectNotInPrerequisiteState

from shared import home, moving
from shared.errors import NotAdopted
from shared.postgres import Connection, connect, create_schema, drop_schema, in_schema
from shared.pytest_plugin import OwnStarter
from shared.servers.handle import own_instance
from shared.servers.server import Endpoint
from shared.settings import Settings

NAMES = "notes", "lab test"
TABLE = """
create table notes (
    position bigint generated always as identity, xid xid8 not null default pg_current_xact_id(), text text not null
);
create index on notes (xid, position);
"""
READ = """
select text from notes where (xid, position) > ('0', 0) and xid < notes_xid(pg_snapshot_xmin(pg_current_snapshot()))
order by xid, position
"""
INSERT = "insert into notes (text) values ('new')"
OLD = ["old 0", "old 1", "old 2"]


def make(conninfo: str) -> None:
    with connect(conninfo) as connection:
        connection.execute(TABLE + home.script(*NAMES))


def write(connection: Connection, text: str) -> int:
    """One row, as anybody inserts it; returns its number."""
    [(number,)] = connection.execute(
        "insert into notes (text) values (%s) returning xid::text::bigint", [text], prepare=True
    )
    return int(number)


def texts(connection: Connection) -> list[str]:
    """All that a reader gets, in the order in which he gets it."""
    return [text for (text,) in connection.execute(READ, prepare=True)]


@pytest.fixture(scope="module")
def fresh(settings: Settings) -> Iterator[Endpoint]:
    """A cluster that has just been made."""
    with own_instance("postgres", settings) as handle:
        yield handle.endpoint


@pytest.fixture
def here(postgres: Endpoint, fresh: Endpoint, unique: str) -> Iterator[str]:
    """A conninfo of three old rows, in a cluster whose transaction ids are above those of the fresh one."""
    conninfo = create_schema(postgres, unique)
    make(conninfo)
    with connect(conninfo) as connection, connect(fresh.url) as other:
        moving.age(connection, max(0, moving.newest_id(other) + 3_000 - moving.newest_id(connection)))
        for text in OLD:
            write(connection, text)
    yield conninfo
    drop_schema(postgres, unique)


@pytest.fixture
def move(postgres: Endpoint, fresh: Endpoint, here: str, unique: str) -> Iterator[Callable[..., str]]:
    """A function that moves them into the fresh cluster; returns the conninfo there."""

    def moved(*options: str) -> str:
        moving.restore(fresh, moving.dump(postgres, unique, *options))
        return in_schema(fresh.url, unique)

    yield moved
    drop_schema(fresh, unique)


@pytest.fixture
def there(move: Callable[..., str]) -> str:
    return move()


def test_unadopted_it_refuses_and_names_the_command(there: str) -> None:
    with connect(there) as connection:
        with pytest.raises(NotAdopted, match=r"have come from another cluster.*: run `lab test adopt` first"):
            home.check(connection, "notes", "lab test")
        for refused in lambda: write(connection, "lost"), lambda: texts(connection):
            with pytest.raises(ObjectNotInPrerequisiteState, match="run `lab test adopt` first"):
                refused()
        assert connection.execute("select text from notes").fetchall() == [(text,) for text in OLD]


def test_adopted_it_reads_the_old_rows_first_and_has_not_changed_them(here: str, there: str) -> None:
    everything = "select xid::text, position, text from notes order by xid, position"
    with connect(there) as connection, connect(here) as original:
        found = home.adopt(connection, *NAMES)
        assert connection.execute(everything).fetchall() == original.execute(everything).fetchall()
        numbers = [write(connection, text) for text in ("new 0", "new 1")]
        assert texts(connection) == [*OLD, "new 0", "new 1"]
        assert (found.moved > 0, found.moved_before, found.newest < numbers[0]) == (True, 0, True)
        assert found.came_from != found.home


def test_adopted_again_or_by_two_at_once_it_stays_as_it_is(there: str) -> None:
    def adopt(_: int) -> home.Adopted:
        with connect(there) as connection:
            return home.adopt(connection, *NAMES)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(adopt, range(2)))
    assert sorted(one.came_from is None for one in found) == [False, True]
    assert len({one.moved for one in [*found, adopt(0)]}) == 1


def test_a_transaction_that_was_open_before_writes_behind_the_old_rows_too(there: str) -> None:
    with connect(there) as older, connect(there) as connection:
        with older.transaction():
            drawn = moving.newest_id(older)
            moving.age(connection, 10)
            found = home.adopt(connection, *NAMES)
            assert write(older, "new") == drawn + found.moved > found.newest
            assert texts(connection) == OLD
        assert texts(connection) == [*OLD, "new"]


def test_a_statement_that_was_prepared_before_has_the_new_numbers(here: str) -> None:
    """The same cluster, into which somebody has put a row from another one."""
    with connect(here) as session, connect(here) as other:
        before = [write(session, "mine") for _ in range(8)][-1]
        assert texts(session)[-1] == "mine"
        other.execute("insert into notes (xid, text) values ((%s + 9000)::text::xid8, 'theirs')", [before])
        found = home.adopt(other, *NAMES)
        assert (found.newest, found.came_from) == (before + 9_000, None)
        assert write(session, "later") > found.newest
        assert texts(session)[-2:] == ["theirs", "later"]


def test_a_writer_waits_for_the_adoption_and_the_adoption_for_writers(there: str) -> None:
    with connect(there) as connection, connect(there) as writer, ThreadPoolExecutor(1) as pool:
        home.adopt(connection, *NAMES)
        with writer.transaction():
            write(writer, "first")
            adopting = pool.submit(home.adopt, connection, *NAMES)
            assert not adopting.done()
        assert adopting.result(60).came_from is None
        assert texts(connection)[-1] == "first"


def test_of_the_data_alone_it_refuses_until_it_is_adopted_and_the_sequence_goes_on(
    move: Callable[..., str], fresh: Endpoint, unique: str
) -> None:
    make(create_schema(fresh, unique))
    with connect(move("--data-only", f"--table={unique}.notes")) as connection:
        with pytest.raises(NotAdopted):
            home.check(connection, *NAMES)
        connection.execute("alter table notes alter position restart with 1")
        home.adopt(connection, *NAMES)
        write(connection, "new")
        assert texts(connection) == [*OLD, "new"]
        [(highest,)] = connection.execute("select array_agg(position order by xid, position) from notes").fetchall()
        assert highest == sorted(highest)


def test_moved_on_and_back_again_the_order_stays(
    here: str, there: str, postgres: Endpoint, fresh: Endpoint, unique: str
) -> None:
    with connect(there) as connection:
        home.adopt(connection, *NAMES)
        write(connection, "new")
    back = moving.dump(fresh, unique)
    drop_schema(postgres, unique)
    moving.restore(postgres, back)
    with connect(here) as connection:
        with pytest.raises(NotAdopted):
            home.check(connection, *NAMES)
        found = home.adopt(connection, *NAMES)
        assert write(connection, "newer") > found.newest
        assert texts(connection) == [*OLD, "new", "newer"]


@pytest.mark.fault
def test_after_pg_upgrade_it_is_adopted_too(own: OwnStarter, unique: str) -> None:
    """The system's identifier is another one, the transaction ids go on."""
    old, new = own("postgres"), own("postgres")
    make(create_schema(old.endpoint, unique))
    with connect(in_schema(old.endpoint.url, unique)) as connection:
        numbers = [write(connection, text) for text in OLD]
    moving.upgrade(old, new)
    new.start()
    with connect(in_schema(new.endpoint.url, unique)) as connection:
        with pytest.raises(NotAdopted):
            home.check(connection, *NAMES)
        found = home.adopt(connection, *NAMES)
        assert (found.newest, found.moved_before) == (numbers[-1], 0)
        assert found.came_from != found.home
        write(connection, "new")
        assert texts(connection) == [*OLD, "new"]


def test_new_numbers_lie_above_all_that_a_snapshot_of_before_may_hold_also_when_the_rows_are_gone(
    here: str, there: str
) -> None:
    """A snapshot knows of transactions that wrote elsewhere, too; and what is published may be dropped."""
    with connect(here) as connection:
        moving.age(connection, 1_000)
        kept = home.snapshot(connection, "notes")
    with connect(there) as connection:
        connection.execute("truncate notes")
        first = home.adopt(connection, *NAMES)
        assert not kept.sees(write(connection, "new"))
        connection.execute("truncate notes")
        connection.execute("update notes_homes set system_identifier = 1")
        again = home.adopt(connection, *NAMES)
        assert (again.came_from, again.moved_before, again.moved) == (1, first.moved, 2 * first.moved)


def test_a_snapshot_is_in_the_numbers_of_the_rows(here: str, there: str) -> None:
    with connect(there) as connection, connect(there) as writer:
        home.adopt(connection, *NAMES)
        early = write(connection, "early")
        with writer.transaction():
            late = write(writer, "late")
            write(connection, "later, and at once")
            taken = home.snapshot(connection, "notes")
        assert (taken.sees(early), taken.sees(late), taken.open) == (True, False, (late,))
        assert home.snapshot(connection, "notes").sees(late)
    with connect(here) as connection:
        connection.execute("drop function notes_xid cascade")
        with pytest.raises(NotAdopted):
            home.snapshot(connection, "notes")


@pytest.mark.parametrize("gone", ["delete from notes_homes", "drop function notes_xid cascade"])
def test_what_was_lost_of_it_is_made_again(here: str, gone: str) -> None:
    with connect(here) as connection:
        connection.execute(gone)
        home.adopt(connection, *NAMES)
        home.check(connection, *NAMES)
        write(connection, "new")
        assert texts(connection) == [*OLD, "new"]


def test_a_table_without_it_is_refused_and_then_adopted(schema: str) -> None:
    with connect(schema) as connection:
        connection.execute(TABLE)
        write(connection, "old")
        with pytest.raises(NotAdopted, match="run `lab test adopt` first"):
            home.check(connection, *NAMES)
        home.adopt(connection, *NAMES)
        write(connection, "new")
        assert texts(connection) == ["old", "new"]


def test_a_role_that_may_only_insert_can_insert_from_any_search_path(here: str, unique: str) -> None:
    with connect(here) as connection:
        connection.execute(f"create role {unique}; grant usage on schema {unique} to {unique}")
        connection.execute(f"grant insert on notes to {unique}")
        with closing(psycopg.connect(here.partition("?")[0], autocommit=True)) as other:
            other.execute(f"set role {unique}")
            other.execute(INSERT.replace("notes", f"{unique}.notes"))
        assert texts(connection) == [*OLD, "new"]
        connection.execute(f"drop owned by {unique}; drop role {unique}")


def test_its_own_rows_of_a_transaction_are_not_taken_for_another_cluster_s(schema: str) -> None:
    make(schema)
    with connect(schema) as connection, connection.transaction():
        for text in OLD:
            write(connection, text)
            connection.execute("reset notes.home")


def test_it_costs_a_look_into_memory(here: str) -> None:
    with connect(here) as connection:
        connection.execute("set enable_seqscan = off")
        plans = (connection.execute(f"explain verbose {query}").fetchall() for query in (READ, INSERT))
        read, insert = ("\n".join(line for (line,) in plan) for plan in plans)
    for plan in read, insert:
        assert "notes_xid(" not in plan  # inlined
        assert "current_setting('notes.home'::text, true)" in plan
    assert "Index Cond" in read
    assert "Sort" not in read
