"""The relay that outlives its servers: a new one goes on from the note, and what no new one mends is raised."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from confluent_kafka import KafkaException
from outbox.relay import Relay
from outbox.relay.cursor import CursorRelay
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.running import keep_running
from outbox.relay.wal import WalRelay, lag
from outbox.stage.shop import RelayClass, Shop, make_relay
from outbox.table import insert_event, pending
from psycopg import OperationalError

from shared import kafka
from shared.errors import CheckpointRefused, ConfigurationError, DeadlineExceeded, LabError, NotAdopted
from shared.postgres import Connection, number
from shared.servers.handle import Handle, own_instance
from shared.settings import Settings
from shared.wait import until

# The sessions that relays have, and the one that reads the slot.
END = """
select pg_terminate_backend(pid) from unnest(%s::int[]) as pid
union all select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[Handle]:
    """To be killed, and started again."""
    with own_instance("kafka", Settings.load()) as started:
        yield started


@contextmanager
def kept_running(conninfo: str, make: Callable[[Connection], Relay]) -> Iterator[Future[None]]:
    """In a thread. Raises what it has raised."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(keep_running, conninfo, make, stop)
        try:
            yield running
        finally:
            stop.set()
            running.result()


@pytest.mark.fault
@pytest.mark.parametrize("way", [PollingPublisher, CursorRelay, WalRelay])
def test_broker_and_session_killed_a_new_relay_goes_on_from_the_note(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, broker: Handle, caplog: pytest.LogCaptureFixture
) -> None:
    shop = replace(shop_with_slot, broker=broker.endpoint)
    kafka.create_topics(shop.broker, [shop.topic])
    sessions: list[int] = []

    def make(session: Connection) -> Relay:
        sessions.append(session.info.backend_pid)
        return make_relay(shop, way, session, publisher=Publisher(shop.broker, patience=1.0))

    def replaced() -> bool:
        connection.execute(END, [sessions[:1], shop.slot])
        return len(sessions) > 1

    first, *others = shop.events()
    with kept_running(shop.conninfo, make):
        insert_event(connection, first, shop.topic)
        until("the first event", lambda: published(shop) == [first.id])
        until("it to be noted", lambda: is_noted(way, shop, connection))
        broker.kill()
        for event in others:
            insert_event(connection, event, shop.topic)
        until("the relay to wait for the broker", lambda: "which is sent again" in caplog.text)
        until("a new relay", replaced)
        broker.start()
        until("all events", lambda: set(published(shop)) == {event.id for event in shop.events()})
    assert "a new one goes on" in caplog.text
    assert published(shop).count(first.id) == 1


def published(shop: Shop) -> list[str]:
    try:
        return [kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)]
    except (KafkaException, DeadlineExceeded):  # it has just been started
        return []


def is_noted(way: RelayClass, shop: Shop, connection: Connection) -> bool:
    """Whether the relay would not publish again what the broker has."""
    if way is WalRelay:
        return lag(connection, shop.slot) < 1000
    if way is CursorRelay:
        return bool(number(connection, "select count(*) from outbox_checkpoint where position > 0"))
    return pending(connection) == 0


@pytest.mark.parametrize("away", [OperationalError("gone"), KafkaException("gone"), LabError("there is one already")])
def test_what_passes_is_tried_again(away: Exception, shop: Shop) -> None:
    made: list[int] = []

    def make(session: Connection) -> Relay:
        made.append(session.info.backend_pid)
        if len(made) < 3:
            raise away
        return make_relay(shop, CursorRelay, session)

    with kept_running(shop.conninfo, make) as running:
        until("the third relay", lambda: len(made) == 3 or running.done())
    assert len(set(made)) == 3  # each has a session of its own


@pytest.mark.parametrize(
    "reason", [NotAdopted("no"), CheckpointRefused("no", "do"), ConfigurationError("no"), ZeroDivisionError()]
)
def test_what_no_new_relay_mends_is_raised(reason: Exception, shop: Shop) -> None:
    tried: list[int] = []

    def make(session: Connection) -> Relay:
        tried.append(session.info.backend_pid)
        assert len(tried) == 1
        raise reason

    with pytest.raises(type(reason)):
        keep_running(shop.conninfo, make, threading.Event())
