"""A row goes to its day; a day is dropped when nothing in it waits, and never before."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from outbox import guard
from outbox.operating.partitions import create_day, drop_published
from outbox.parking import parked
from outbox.relay.cursor import CursorRelay, published_by
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.service import write_with_outbox
from outbox.stage.shop import RelayClass, Shop, at_work, make_relay, serve
from outbox.table import pending
from outbox.wrong.deleting import BatchDeleteRelay

from shared.checkers import check
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

TODAY = datetime.now(UTC).date()  # or yesterday, by the time that a test runs
OLD = date(2020, 2, 29)


def rows(connection: Connection) -> dict[str, int]:
    """Partition -> number of rows."""
    return dict(connection.execute("select tableoid::regclass::text, count(*) from outbox group by 1").fetchall())


def insert_on(connection: Connection, day: date, published: bool = False, hour: int = 12) -> None:
    at = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    connection.execute(
        "insert into outbox (created_at, published_at, aggregate_type) values (%s, %s, 'orders')",
        [at, at if published else None],
    )


def test_rows_go_to_the_partition_of_their_day(shop: Shop, connection: Connection) -> None:
    name = create_day(connection, OLD)
    insert_on(connection, OLD, hour=0)
    insert_on(connection, OLD, hour=23)
    assert rows(connection) == {name: 2}


def test_days_end_at_midnight_utc_whatever_the_session_thinks(shop: Shop, connection: Connection) -> None:
    connection.execute("set timezone to 'Pacific/Auckland'")
    first, second = create_day(connection, OLD), create_day(connection, OLD + timedelta(days=1))
    insert_on(connection, OLD, hour=23)
    insert_on(connection, OLD + timedelta(days=1), hour=0)
    assert rows(connection) == {first: 1, second: 1}


def test_a_row_without_a_day_is_kept_by_the_default(shop: Shop, connection: Connection) -> None:
    create_day(connection, OLD)
    shop.write_backlog()
    assert rows(connection) == {"outbox_default": shop.count}


def test_a_day_is_made_once(shop: Shop, connection: Connection) -> None:
    assert create_day(connection, OLD) == create_day(connection, OLD) == "outbox_20200229"


def test_a_day_that_was_forgotten_gets_its_rows_as_they_were(shop: Shop, connection: Connection) -> None:
    for day in (OLD, OLD + timedelta(days=1)):
        insert_on(connection, day)
        insert_on(connection, day, published=True)
    before = connection.execute("select * from outbox order by position").fetchall()
    name = create_day(connection, OLD)
    assert rows(connection) == {name: 2, "outbox_default": 2}
    assert connection.execute("select * from outbox order by position").fetchall() == before


def test_a_day_made_late_is_like_the_other_partitions(shop: Shop, connection: Connection) -> None:
    insert_on(connection, OLD)
    late = create_day(connection, OLD)
    indexes = """
    select regexp_replace(indexdef, %s, 'day', 'g') from pg_indexes
    where schemaname = current_schema() and tablename = %s order by 1
    """
    columns = """
    select column_name, column_default, is_nullable from information_schema.columns
    where table_schema = current_schema() and table_name = %s order by 1
    """
    looks = [
        (connection.execute(indexes, [name, name]).fetchall(), connection.execute(columns, [name]).fetchall())
        for name in (late, "outbox_default")
    ]
    assert looks[0] == looks[1]


def test_a_guard_is_asked_about_new_rows_of_the_day_and_not_about_those_that_moved(
    shop: Shop, connection: Connection
) -> None:
    insert_on(connection, OLD)
    guard.install(connection)
    name = create_day(connection, OLD)
    insert_on(connection, OLD)
    assert rows(connection) == {name: 1}
    assert len(parked(connection)) == 1


@pytest.mark.parametrize("way", [PollingPublisher, BatchDeleteRelay, CursorRelay, WalRelay])
def test_while_rows_move_writers_and_relays_go_on_and_every_event_comes_once(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, recorder: Recorder, tmp_path: Path
) -> None:
    shop = replace(shop_with_slot, count=600)
    with (
        Tap("consumer", shop.broker, [shop.topic], recorder) as tap,
        connect(shop.conninfo) as other,
        at_work(make_relay(shop, way, other, 20)),
    ):
        service = Worker("service", tmp_path / "service.log", serve, shop, write_with_outbox).start()
        assert tap.wait_for(100)
        days = connection.execute("select distinct (created_at at time zone 'utc')::date from outbox").fetchall()
        made = [create_day(connection, day, timedelta(minutes=1)) for (day,) in days]
        service.wait()
        assert tap.wait_for(shop.count)
        tap.catch_up()
    assert not any(check(History.read(recorder.path)).values())
    assert way is BatchDeleteRelay or rows(connection)[made[0]] >= 100


def test_a_day_is_not_made_past_an_open_transaction(shop: Shop, connection: Connection) -> None:
    with connect(shop.conninfo) as writer, writer.transaction():
        insert_on(writer, OLD)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            create_day(connection, OLD, timedelta(milliseconds=50))
    assert rows(connection) == {"outbox_default": 1}


@pytest.mark.parametrize("way", [PollingPublisher, CursorRelay])
def test_relays_find_the_rows_of_every_partition(way: RelayClass, shop: Shop, connection: Connection) -> None:
    create_day(connection, TODAY)
    shop.write_backlog()
    assert make_relay(shop, way, connection).step() == shop.count


def test_a_published_day_is_dropped(shop: Shop, connection: Connection) -> None:
    name = create_day(connection, OLD)
    insert_on(connection, OLD, published=True)
    assert drop_published(connection, TODAY) == [name]
    assert rows(connection) == {}


def test_what_waits_is_not_dropped_nor_what_is_published_with_it(shop: Shop, connection: Connection) -> None:
    name = create_day(connection, OLD)
    insert_on(connection, OLD, published=True)
    insert_on(connection, OLD)
    assert drop_published(connection, TODAY) == []
    assert rows(connection) == {name: 2}


def test_days_from_the_limit_on_stay_and_so_does_the_default(shop: Shop, connection: Connection) -> None:
    old, limit = create_day(connection, OLD), create_day(connection, OLD + timedelta(days=1))
    insert_on(connection, OLD + timedelta(days=1), published=True)
    insert_on(connection, OLD + timedelta(days=2), published=True)
    assert drop_published(connection, OLD + timedelta(days=1)) == [old]
    assert rows(connection) == {limit: 1, "outbox_default": 1}


def test_what_the_cursor_has_passed_is_dropped_and_nothing_behind_it(shop: Shop, connection: Connection) -> None:
    name = create_day(connection, OLD)
    insert_on(connection, OLD)
    relaying = make_relay(shop, CursorRelay, connection)
    assert relaying.step() == 1
    done = published_by(connection)
    insert_on(connection, OLD)
    assert drop_published(connection, TODAY, done) == []
    assert relaying.step() == 1
    done = published_by(connection)
    assert drop_published(connection, TODAY, done) == [name]


def test_while_the_cursor_is_in_the_middle_of_a_window_nothing_of_it_is_dropped(
    shop: Shop, connection: Connection
) -> None:
    name = create_day(connection, OLD)
    with connection.transaction():
        insert_on(connection, OLD)
        insert_on(connection, OLD)
    relaying = CursorRelay(connection, Publisher(shop.broker), batch=1, pages=1)
    assert relaying.step() == 1
    assert drop_published(connection, TODAY, published_by(connection)) == []
    assert rows(connection) == {name: 2}


def test_a_row_that_was_inserted_early_and_committed_late_is_not_dropped(shop: Shop, connection: Connection) -> None:
    """It lies before the row that the cursor has read."""
    name = create_day(connection, OLD)
    relaying = make_relay(shop, CursorRelay, connection)
    with connect(shop.conninfo) as writer, writer.transaction():
        insert_on(writer, OLD)
        insert_on(connection, OLD)
        assert relaying.step() == 1
    assert drop_published(connection, TODAY, published_by(connection)) == []
    assert relaying.step() == 1
    assert drop_published(connection, TODAY, published_by(connection)) == [name]


def test_a_row_that_is_not_committed_yet_is_not_dropped(shop: Shop, connection: Connection) -> None:
    """A transaction that began before midnight writes into the day that is over."""
    name = create_day(connection, OLD)
    with connect(shop.conninfo) as writer:
        with writer.transaction():
            insert_on(writer, OLD)
            assert drop_published(connection, TODAY, patience=timedelta(milliseconds=50)) == []
        assert pending(connection) == 1
        writer.execute("update outbox set published_at = now()")
    assert drop_published(connection, TODAY) == [name]


def test_a_row_that_commits_between_the_two_looks_is_not_dropped_with_its_day(
    shop: Shop, connection: Connection
) -> None:
    """The first look sees nothing; while the lock is waited for, the row commits."""
    name = create_day(connection, OLD)
    with connect(shop.conninfo) as writer, connect(shop.conninfo) as watcher, ThreadPoolExecutor(1) as pool:
        with writer.transaction():
            insert_on(writer, OLD)
            dropping = pool.submit(drop_published, connection, TODAY, patience=timedelta(minutes=1))
            until("the lock to be waited for", lambda: waits(watcher, connection.info.backend_pid))
        assert dropping.result(60) == []
    assert rows(connection) == {name: 1}


def waits(watcher: Connection, pid: int) -> bool:
    row = watcher.execute("select cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone()
    return bool(row and row[0])
