"""The connector's life: what it makes, what it leaves."""

from collections.abc import Iterator

import psycopg
import pytest
from outbox.processes import Shop, write_backlog
from outbox.relay.debezium import Connector

from shared.errors import DeadlineExceeded
from shared.event import Event
from shared.history import Recorder
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.wait import until


@pytest.fixture
def connector(shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str) -> Iterator[Connector]:
    connector = Connector(connect, postgres, unique, unique)
    connector.put()
    yield connector
    connector.delete()


def test_its_messages_are_the_events_that_were_written(shop: Shop, connector: Connector, recorder: Recorder) -> None:
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        write_backlog(shop)
        assert tap.wait_for(shop.count)
    assert by_id(tap.events) == by_id(shop.events())
    assert not tap.rejected


def test_events_written_while_it_was_stopped_come_when_it_runs_again(
    shop: Shop, connect: Endpoint, connector: Connector, recorder: Recorder
) -> None:
    connector.stop()
    write_backlog(shop)
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        connector.resume()
        assert tap.wait_for(shop.count)
    assert len(tap.events) == shop.count


def test_deleted_it_leaves_neither_slot_nor_publication(
    shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str
) -> None:
    connector = Connector(connect, postgres, unique, unique)
    connector.put()
    connector.delete()
    with psycopg.connect(postgres.url) as connection:
        left = connection.execute(
            "select slot_name from pg_replication_slots where slot_name = %s"
            " union all select pubname from pg_publication where pubname = %s",
            [unique, unique],
        ).fetchall()
    assert left == []
    assert connector.status() == {}


def test_a_connector_that_cannot_run_says_why(shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str) -> None:
    connector = Connector(connect, postgres, unique, unique, settings={"publication.name": "no_such_publication"})
    try:
        connector.configure()
        assert "ublication" in until("its task to fail", connector.failure)
        with pytest.raises(DeadlineExceeded, match="ublication"):
            connector.wait_until_running(seconds=0)
    finally:
        connector.delete()


def by_id(events: "list[Event] | Iterator[Event]") -> dict[str, Event]:
    return {event.id: event for event in events}
