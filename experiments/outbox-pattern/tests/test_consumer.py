"""The consumer undisturbed and killed; its helpers: the buffer, and Java's partitioner."""

import random
from pathlib import Path

import pytest
from outbox.consumer import ConsumeWindow, Handler, with_inbox
from outbox.ordering import InOrder, java_partition, murmur2
from outbox.relay.polling import PollingPublisher
from outbox.stage.payments import SCHEMA, Payments, accounts, consume
from outbox.stage.shop import Shop, make_relay
from outbox.wrong.consuming import by_offset, inbox_first, inbox_last, no_inbox

from shared import kafka
from shared.checkers import duplicate_effect, lost
from shared.errors import LabError
from shared.event import Event
from shared.history import Action, History, Outcome
from shared.postgres import Connection
from shared.worker import Worker


@pytest.fixture
def payments(shop: Shop, connection: Connection) -> Payments:
    """Published, once each."""
    paid = Payments(shop.conninfo, shop.broker, shop.topic, shop.history, shop.seed, shop.count)
    connection.execute(SCHEMA)
    paid.write_backlog()
    make_relay(paid, PollingPublisher, connection).step()
    return paid


@pytest.mark.parametrize("way", [no_inbox, inbox_first, inbox_last, by_offset, with_inbox])
def test_undisturbed_every_way_but_the_hash_has_every_effect_once(way: Handler, payments: Payments) -> None:
    consume(payments, way)
    history = History.read(payments.history)
    assert not duplicate_effect(history) + lost(history)
    assert sum(accounts(payments.conninfo).values()) == sum(event.data["cents"] for event in payments.events())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("way", "window", "twice", "never"),
    [
        (inbox_first, ConsumeWindow.BETWEEN, 0, 1),
        (inbox_last, ConsumeWindow.BETWEEN, 1, 0),
        (with_inbox, ConsumeWindow.BETWEEN, 0, 0),
        (with_inbox, ConsumeWindow.AFTER_EFFECT, 0, 0),
    ],
)
def test_killed_in_a_window(
    way: Handler, window: ConsumeWindow, twice: int, never: int, payments: Payments, tmp_path: Path
) -> None:
    assert Worker("consumer", tmp_path / "log", consume, payments, way, window, 15).start().wait() == -9
    consume(payments, way)
    history = History.read(payments.history)
    effects = {op.value for op in history.of(Action.EFFECT, Outcome.OK)}
    assert len(duplicate_effect(history)) == twice
    assert len(history.committed - effects) == never


@pytest.mark.fault
def test_killed_before_the_offset_the_consumer_without_an_inbox_doubles(payments: Payments, tmp_path: Path) -> None:
    worker = Worker("consumer", tmp_path / "log", consume, payments, no_inbox, ConsumeWindow.AFTER_EFFECT, 15)
    assert worker.start().wait() == -9
    consume(payments, no_inbox)
    assert duplicate_effect(History.read(payments.history))


def test_a_second_run_of_a_group_has_nothing_to_do(payments: Payments) -> None:
    consume(payments, no_inbox)
    consume(payments, no_inbox)
    assert not duplicate_effect(History.read(payments.history))


# The buffer.


def numbered(*sequences: int, key: str = "a") -> list[Event]:
    return [Event("t", "/s", key, sequence=number) for number in sequences]


def through(buffer: InOrder, events: list[Event]) -> list[int]:
    return [released.sequence for event in events for released in buffer.take(event)]


def test_the_buffer_releases_any_permutation_in_order() -> None:
    sequences = list(range(1, 50))
    random.Random(3).shuffle(sequences)
    assert through(InOrder(), numbered(*sequences)) == list(range(1, 50))


def test_the_buffer_drops_what_came_before() -> None:
    assert through(InOrder(), numbered(1, 1, 3, 3, 2, 3, 1)) == [1, 2, 3]


def test_the_buffer_names_what_is_missing_and_lets_other_aggregates_pass() -> None:
    buffer = InOrder()
    assert through(buffer, [*numbered(1, 3, 4), *numbered(1, 2, key="b")]) == [1, 1, 2]
    assert buffer.missing() == {"a": 2}


def test_the_buffer_names_an_aggregate_whose_first_event_is_missing() -> None:
    buffer = InOrder()
    assert through(buffer, numbered(2)) == []
    assert buffer.missing() == {"a": 1}


def test_the_buffer_does_not_grow_without_end() -> None:
    with pytest.raises(LabError, match=r"more than 5 events wait; missing: \{'a': 1\}"):
        through(InOrder(limit=5), numbered(*range(2, 10)))


def test_the_buffer_lets_an_event_without_a_number_pass_at_once() -> None:
    buffer = InOrder()
    assert through(buffer, numbered(2, 0, 1, 0)) == [0, 1, 2, 0]


# Java's partitioner.


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_kafkas_own_test(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_our_producer_puts_keys_where_java_does(shop: Shop) -> None:
    producer = kafka.producer(shop.broker)
    for number in range(50):
        producer.produce(shop.topic, b"{}", f"key-{number}")
    producer.flush()
    for message in kafka.read_all(shop.broker, shop.topic):
        assert message.partition() == java_partition(kafka.key(message) or b"", 3)
