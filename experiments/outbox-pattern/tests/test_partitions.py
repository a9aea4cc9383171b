"""A row goes to its day; a day is dropped when nothing in it waits, and never before."""

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from outbox.partitions import create_day, drop_published
from outbox.processes import Shop, make_relay, write_backlog
from outbox.table import insert_event, pending

from shared.postgres import Connection, connect

TODAY = datetime.now(UTC).date()
TOMORROW = TODAY + timedelta(days=1)
OLD = date(2020, 2, 29)
DRAINED = "select xid::text, position from outbox_checkpoint where relay = 'cursor'"


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
    create_day(connection, TOMORROW)
    write_backlog(shop)
    assert rows(connection) == {"outbox_default": shop.count}


def test_a_day_is_made_once(shop: Shop, connection: Connection) -> None:
    assert create_day(connection, OLD) == create_day(connection, OLD) == "outbox_20200229"


def test_a_day_that_has_begun_in_the_default_cannot_be_made_any_more(shop: Shop, connection: Connection) -> None:
    insert_on(connection, OLD)
    with pytest.raises(psycopg.errors.CheckViolation):
        create_day(connection, OLD)
    assert rows(connection) == {"outbox_default": 1}


@pytest.mark.parametrize("kind", ["publish, then mark", "cursor"])
def test_relays_find_the_rows_of_every_partition(kind: str, shop: Shop, connection: Connection) -> None:
    create_day(connection, TODAY)
    write_backlog(shop)
    assert make_relay(shop, kind, connection).step() == shop.count


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
    name = create_day(connection, TODAY)
    write_backlog(shop)
    relaying = make_relay(shop, "cursor", connection)
    relaying.step()
    done = connection.execute(DRAINED).fetchone() or ("0", 0)
    insert_event(connection, next(shop.events()), shop.topic)
    assert drop_published(connection, TOMORROW, done) == []
    relaying.step()
    done = connection.execute(DRAINED).fetchone() or ("0", 0)
    assert drop_published(connection, TOMORROW, done) == [name]


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
