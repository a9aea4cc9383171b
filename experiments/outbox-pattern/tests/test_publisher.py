"""What the broker did not acknowledge is not noted; every relay sends it again, by itself, when the broker is back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaException
from outbox.parking import parked
from outbox.relay import Relay, publisher
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import PATIENCE, Publisher
from outbox.relay.wal import WalRelay
from outbox.stage.shop import RELAYS, RelayClass, Shop, at_work, make_relay
from outbox.table import insert_event, pending
from psycopg.conninfo import make_conninfo

from shared import kafka
from shared.errors import DeadlineExceeded
from shared.postgres import Connection
from shared.servers.handle import Handle, own_instance
from shared.settings import Settings
from shared.wait import until

BATCH = 10
every_relay = pytest.mark.parametrize("way", RELAYS)
SOON = 1.0  # seconds until a relay of these tests gives up a broker that is away
WAITS = 5.0  # seconds that Postgres waits for a word of a log's reader, in one of them


@pytest.fixture(scope="module")
def fragile() -> Iterator[Handle]:
    """A broker to be harmed."""
    with own_instance("kafka", Settings.load()) as broker:
        yield broker


@pytest.fixture
def harmed(shop_with_slot: Shop, fragile: Handle) -> Shop:
    """The shop on that broker."""
    kafka.create_topics(fragile.endpoint, [shop_with_slot.topic])
    return replace(shop_with_slot, broker=fragile.endpoint)


def first_deliveries(shop: Shop) -> dict[str, list[int]]:
    """Order -> the numbers of its events, each where it comes first."""
    found: dict[str, list[int]] = {}
    for message in kafka.read_all(shop.broker, shop.topic):
        numbers = found.setdefault((kafka.key(message) or b"").decode(), [])
        number = int(kafka.headers(message)["ce_aggregateversion"])
        numbers += [number] if number not in numbers else []
    return found


def all_in_order(shop: Shop) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in shop.events():
        found.setdefault(event.subject, []).append(event.sequence)
    return found


@contextmanager
def paused(shop: Shop, broker: Handle) -> Iterator[None]:
    broker.pause()
    try:
        yield
    finally:
        back(shop, broker)


def back(shop: Shop, broker: Handle) -> None:
    """It may have lost its session with its controller meanwhile, and lead nothing for a moment."""
    broker.resume()
    until("the broker to lead the topic", lambda: leads(shop))


def leads(shop: Shop) -> bool:
    try:
        return bool(kafka.end_offsets(shop.broker, shop.topic))
    except (KafkaException, DeadlineExceeded):
        return False


def write_and_move_one(shop: Shop, relaying: Relay, connection: Connection) -> None:
    """All events written, the first of them moved before the others were there: the relay has met the broker."""
    first, *others = shop.events()
    insert_event(connection, first, shop.topic)
    until("the first event to be moved", relaying.step)
    for event in others:
        insert_event(connection, event, shop.topic)


@pytest.mark.fault
@every_relay
def test_every_relay_goes_on_by_itself_when_the_broker_is_back(
    way: RelayClass, harmed: Shop, fragile: Handle, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    sending = Publisher(harmed.broker)
    relaying = make_relay(harmed, way, connection, BATCH, publisher=sending)
    write_and_move_one(harmed, relaying, connection)
    sending.patience = SOON
    with paused(harmed, fragile), at_work(relaying):
        until("the relay to have given up", lambda: "which is sent again" in caplog.text)
        back(harmed, fragile)
        sending.patience = PATIENCE
        until("every event to be published", lambda: first_deliveries(harmed) == all_in_order(harmed))


@pytest.mark.fault
@every_relay
def test_after_a_failure_the_next_step_begins_at_the_last_note(
    way: RelayClass, harmed: Shop, fragile: Handle, connection: Connection
) -> None:
    sending = Publisher(harmed.broker)
    relaying = make_relay(harmed, way, connection, harmed.count, publisher=sending)
    write_and_move_one(harmed, relaying, connection)
    sending.patience = SOON
    with paused(harmed, fragile), pytest.raises(KafkaException):
        until("the others", relaying.step)
    sending.patience = PATIENCE
    moved = 0

    def all_moved() -> bool:
        nonlocal moved
        moved += relaying.step()
        return moved >= harmed.count - 1

    until("the others to be moved", all_moved, 60)
    assert moved == harmed.count - 1
    assert first_deliveries(harmed) == all_in_order(harmed)
    relaying.close()


@pytest.mark.fault
@pytest.mark.parametrize("given_up_by", [{"patience": 4.0}, {"message_timeout_ms": 4000}], ids=str)
def test_what_the_broker_did_not_acknowledge_is_not_marked(
    given_up_by: dict[str, Any], harmed: Shop, fragile: Handle, connection: Connection
) -> None:
    relaying = PollingPublisher(connection, Publisher(harmed.broker, **given_up_by), BATCH)
    write_and_move_one(harmed, relaying, connection)
    with paused(harmed, fragile), pytest.raises(KafkaException):
        relaying.step()
    assert pending(connection) == harmed.count - 1
    until("the others to be moved", lambda: relaying.step() == 0)  # by a publisher that is as new
    assert first_deliveries(harmed) == all_in_order(harmed)
    relaying.close()


@pytest.mark.fault
def test_the_log_relay_keeps_its_stream_while_the_broker_is_waited_for(
    harmed: Shop, fragile: Handle, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than Postgres waits for a word of its reader."""
    monkeypatch.setattr(publisher, "SLICE", 0.1)
    options = f"-csearch_path={harmed.slot} -cwal_sender_timeout={WAITS * 1000:.0f}"
    relaying = WalRelay(
        make_conninfo(harmed.conninfo, options=options), connection, Publisher(harmed.broker), harmed.slot
    )
    write_and_move_one(harmed, relaying, connection)
    tell, told = relaying.publisher.meanwhile, [time.monotonic()]

    def tell_and_note() -> None:
        tell()
        told.append(time.monotonic())

    relaying.publisher.meanwhile = tell_and_note
    with paused(harmed, fragile), at_work(relaying):
        until("the relay to have waited", lambda: told[-1] - told[0] > 1.2 * WAITS)
        back(harmed, fragile)
        until("every event to be published", lambda: first_deliveries(harmed) == all_in_order(harmed))


def test_a_full_queue_drops_no_row(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    relaying = PollingPublisher(connection, Publisher(shop.broker, queue_buffering_max_messages=4), shop.count)
    assert relaying.step() == shop.count
    assert first_deliveries(shop) == all_in_order(shop)
    relaying.close()


def test_a_topic_that_is_deleted_under_a_relay_has_its_events_parked(shop: Shop, connection: Connection) -> None:
    relaying = PollingPublisher(connection, Publisher(shop.broker, topic_metadata_propagation_max_ms=500), BATCH)
    write_and_move_one(shop, relaying, connection)
    kafka.delete_topics(shop.broker, shop.topic)
    with pytest.raises(KafkaException):
        relaying.step()
    assert relaying.step() == BATCH
    assert {one.reason for one in parked(connection)} == {f"there is no topic {shop.topic!r}"}
    relaying.close()
