"""The connector's life: what it makes, what it leaves."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from outbox.relay.debezium import Connector, NotDeleted
from outbox.stage.shop import Shop
from outbox.table import create
from psycopg.conninfo import make_conninfo

from shared.errors import ConfigurationError, DeadlineExceeded
from shared.event import Event
from shared.history import Recorder
from shared.postgres import Connection, create_schema, drop_schema
from shared.postgres import connect as session
from shared.pytest_plugin import OwnStarter
from shared.servers.handle import Handle
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.wait import until


@pytest.fixture
def connector(shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str) -> Iterator[Connector]:
    with Connector(connect, postgres, unique, unique).running() as connector:
        yield connector


@pytest.fixture(params=["a$b(c)", ',D."e"\\ [f]|'])
def oddly_named(
    request: pytest.FixtureRequest, shop: Shop, postgres: Endpoint, unique: str
) -> Iterator[tuple[Shop, str]]:
    """The shop in a schema whose name would be another as a pattern, or several; and that name."""
    conninfo = create_schema(postgres, name := f"{unique}_{request.param}")
    create(conninfo)
    yield replace(shop, conninfo=conninfo), name
    drop_schema(postgres, name)


def test_its_messages_are_the_events_that_were_written(shop: Shop, connector: Connector, recorder: Recorder) -> None:
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        shop.write_backlog()
        assert tap.wait_for(shop.count)
    assert by_id(tap.events) == by_id(shop.events())
    assert not tap.rejected


def test_events_come_from_a_schema_of_any_name_at_an_address_with_options(
    oddly_named: tuple[Shop, str], connect: Endpoint, postgres: Endpoint, unique: str, recorder: Recorder
) -> None:
    shop, name = oddly_named
    theirs = make_conninfo(postgres.url, options="-c statement_timeout=50s", target_session_attrs="read-write")
    connector = Connector(connect, replace(postgres, url=theirs), unique, name)
    with connector.running(), Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        shop.write_backlog()
        assert tap.wait_for(shop.count)


@pytest.mark.parametrize("part", [{"target_session_attrs": "standby"}, {"options": "-c no_such_setting=1"}])
def test_what_the_address_says_of_the_session_reaches_its_driver(
    shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str, part: dict[str, str]
) -> None:
    config = Connector(connect, replace(postgres, url=make_conninfo(postgres.url, **part)), unique, unique).config()
    checked = httpx.put(f"{connect.url}/connector-plugins/PostgresConnector/config/validate", json=config, timeout=60)
    values = {found["value"]["name"]: found["value"]["errors"] for found in checked.json()["configs"]}
    assert "Error while validating" in str(values["database.hostname"])


def test_events_written_while_it_was_stopped_come_when_it_runs_again(
    shop: Shop, connect: Endpoint, connector: Connector, recorder: Recorder
) -> None:
    connector.stop()
    shop.write_backlog()
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
    with session(postgres.url) as connection:
        assert left(connection, unique) == []
    assert connector.status() == {}


@pytest.mark.fault
def test_its_slot_is_dropped_whatever_connect_says(
    shop: Shop, postgres: Endpoint, unique: str, own: OwnStarter
) -> None:
    """Killed, it says nothing; and started again it still has the connector, whose task fails and makes no slot."""
    kafka = {"kafka": own("kafka").endpoint}
    worker = own("connect", kafka)
    connector = Connector(worker.endpoint, postgres, unique, unique)
    with session(postgres.url) as connection:
        with pytest.raises(KeyboardInterrupt):
            interrupted_without_connect(connector, worker)
        assert left(connection, unique) == []
        with pytest.raises(NotDeleted, match="delete it when Connect answers"):
            connector.delete()
        worker.start()
        assert "ublication" in until("its task to fail", connector.failure)
        assert left(connection, unique) == []
        connector.delete()
        assert (left(connection, unique), connector.status()) == ([], {})


@pytest.mark.parametrize("name", ["Orders", "orders-1", "", "o" * 64, "bücher", "a/../b"])
def test_a_name_that_a_slot_cannot_have_is_a_clear_error(connect: Endpoint, postgres: Endpoint, name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 63 lower-case letters"):
        Connector(connect, postgres, name, "orders")


def test_a_connector_that_cannot_run_says_why(shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str) -> None:
    connector = Connector(connect, postgres, unique, unique, settings={"publication.name": "no_such_publication"})
    try:
        connector.configure()
        assert "ublication" in until("its task to fail", connector.failure)
        with pytest.raises(DeadlineExceeded, match="ublication"):
            connector.wait_until_running(seconds=0)
    finally:
        connector.delete()


def interrupted_without_connect(connector: Connector, worker: Handle) -> None:
    with connector.running():
        worker.kill()
        raise KeyboardInterrupt


def left(connection: Connection, name: str) -> list[str]:
    """Which of slot and publication there are of that name."""
    found = connection.execute(
        "select 'slot' from pg_replication_slots where slot_name = %(name)s"
        " union all select 'publication' from pg_publication where pubname = %(name)s order by 1",
        {"name": name},
    )
    return [kind for (kind,) in found]


def by_id(events: "list[Event] | Iterator[Event]") -> dict[str, Event]:
    return {event.id: event for event in events}
