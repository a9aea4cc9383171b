"""The three ways to write a row and an event."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from outbox.service import Write, write_with_outbox
from outbox.stage.failures import serve_through
from outbox.stage.shop import Shop
from outbox.table import pending, steps
from outbox.wrong.dual_write import commit_then_publish, publish_then_commit

from shared import kafka
from shared.event import Event
from shared.postgres import Connection
from shared.wait import until


@pytest.mark.parametrize("write", [commit_then_publish, publish_then_commit, write_with_outbox])
def test_every_way_writes_the_row(write: Write, shop: Shop, connection: Connection) -> None:
    event = next(shop.events())
    write(connection, kafka.producer(shop.broker), shop.topic, event, lambda _: None)
    assert steps(shop.conninfo) == {(event.subject, event.sequence)}


@pytest.mark.parametrize("write", [commit_then_publish, publish_then_commit])
def test_the_wrong_ways_publish_at_once(write: Write, shop: Shop, connection: Connection) -> None:
    event = next(shop.events())
    write(connection, kafka.producer(shop.broker), shop.topic, event, lambda _: None)
    (message,) = kafka.read_all(shop.broker, shop.topic)
    assert Event.from_kafka(kafka.key(message), kafka.value(message), kafka.headers(message)) == event


def test_the_outbox_publishes_nothing_by_itself(shop: Shop, connection: Connection) -> None:
    for event in shop.events():
        write_with_outbox(connection, kafka.producer(shop.broker), shop.topic, event)
    assert pending(connection) == shop.count
    assert kafka.read_all(shop.broker, shop.topic) == []


def test_a_refused_row_leaves_no_event_in_the_outbox(shop: Shop, connection: Connection) -> None:
    event = next(replace(shop, refused_every=1).events())
    with pytest.raises(psycopg.IntegrityError):
        write_with_outbox(connection, kafka.producer(shop.broker), shop.topic, event)
    assert pending(connection) == 0


def test_publish_then_commit_tells_the_world_of_a_refused_row(shop: Shop, connection: Connection) -> None:
    event = next(replace(shop, refused_every=1).events())
    with pytest.raises(psycopg.IntegrityError):
        publish_then_commit(connection, kafka.producer(shop.broker), shop.topic, event)
    assert len(kafka.read_all(shop.broker, shop.topic)) == 1
    assert steps(shop.conninfo) == set()


def test_a_service_that_is_held_back_takes_the_second_half_when_it_may(
    shop: Shop, connection: Connection, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve_through, replace(shop, rate=1000.0), go_on)
        try:
            until("half of the events", lambda: pending(connection) == shop.count // 2)
            assert not serving.done()
        finally:
            go_on.touch()
    assert pending(connection) == shop.count


def test_the_event_is_written_by_the_transaction_of_its_row(shop: Shop, connection: Connection) -> None:
    """What a kill between the two inserts cannot show: an event inserted just after the commit."""
    for event in shop.events():
        write_with_outbox(connection, None, shop.topic, event)
    same = "select count(*) from outbox join order_steps on order_id = aggregate_id and number = sequence"
    row = connection.execute(f"{same} where order_steps.xmin = outbox.xid::xid").fetchone()
    assert row == (shop.count,)
