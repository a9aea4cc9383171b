"""The polling publisher, and the one that marks too early."""

from collections.abc import Callable
from pathlib import Path

import pytest
from outbox.processes import RELAYS, Kill, Shop, relay, write_backlog
from outbox.relay.polling import MarkFirstPublisher, PollingPublisher
from outbox.table import pending
from outbox.windows import RelayWindow

from shared import kafka
from shared.checkers import check, duplicate_delivery, lost
from shared.event import Event
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.tap import Tap
from shared.worker import Worker

BATCH = 10


@pytest.mark.parametrize("kind", RELAYS)
def test_undisturbed_it_publishes_every_event_once_and_in_order(
    kind: str, shop: Shop, connection: Connection, recorder: Recorder
) -> None:
    write_backlog(shop)
    publisher = RELAYS[kind](connection, kafka.producer(shop.broker), batch=BATCH)
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        assert [publisher.step() for _ in range(5)] == [10, 10, 10, 10, 0]
        tap.catch_up()
    history = History.read(recorder.path)
    assert not any(check(history).values())


def test_what_it_publishes_is_the_event_that_was_written(shop: Shop, connection: Connection) -> None:
    write_backlog(shop)
    PollingPublisher(connection, kafka.producer(shop.broker)).step()
    messages = kafka.read_all(shop.broker, shop.topic)
    events = [Event.from_kafka(kafka.key(m), kafka.value(m), kafka.headers(m)) for m in messages]
    assert sorted(events, key=lambda event: event.id) == sorted(shop.events(), key=lambda event: event.id)


@pytest.mark.fault
@pytest.mark.parametrize("window", RelayWindow)
def test_killed_in_any_window_it_loses_nothing(
    window: RelayWindow, shop: Shop, recorder: Recorder, tmp_path: Path
) -> None:
    history = kill_and_finish("publish, then mark", window, shop, recorder, tmp_path)
    twice = window in (RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK)
    assert not lost(history)
    assert len(duplicate_delivery(history)) == (BATCH if twice else 0)


@pytest.mark.fault
def test_marking_first_loses_a_batch_when_killed_before_publishing(
    shop: Shop, recorder: Recorder, tmp_path: Path
) -> None:
    history = kill_and_finish("mark, then publish", RelayWindow.AFTER_COMMIT, shop, recorder, tmp_path)
    assert len(lost(history)) == BATCH
    assert not duplicate_delivery(history)


def test_the_wrong_publisher_marks_before_the_broker_has_the_batch(shop: Shop, connection: Connection) -> None:
    write_backlog(shop)
    seen: list[int] = []

    def look(window: str) -> None:
        with connect(shop.conninfo) as other:
            if window == RelayWindow.AFTER_COMMIT:
                seen.append(shop.count - pending(other))
                seen.append(len(kafka.read_all(shop.broker, shop.topic)))

    MarkFirstPublisher(connection, kafka.producer(shop.broker), batch=BATCH, at=look).step()
    assert seen == [BATCH, 0]


def test_a_second_relay_waits_for_the_batch_of_the_first(shop: Shop, connection: Connection) -> None:
    write_backlog(shop)
    with connect(shop.conninfo) as other:
        other.execute("set lock_timeout = '200ms'")
        second = PollingPublisher(other, kafka.producer(shop.broker), batch=BATCH)
        blocked: list[Callable[[], object]] = []

        def contend(window: str) -> None:
            if window == RelayWindow.AFTER_READ:
                with pytest.raises(Exception, match="lock timeout"):
                    second.step()
                blocked.append(second.step)

        PollingPublisher(connection, kafka.producer(shop.broker), batch=BATCH, at=contend).step()
    assert len(blocked) == 1
    assert len(kafka.read_all(shop.broker, shop.topic)) == BATCH


def kill_and_finish(kind: str, window: RelayWindow, shop: Shop, recorder: Recorder, folder: Path) -> History:
    """A relay killed at its second batch; the next one does the rest."""
    write_backlog(shop)
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        code = Worker("relay", folder / "relay.log", relay, shop, kind, BATCH, 0.01, Kill(window, 2)).start().wait()
        with connect(shop.conninfo) as connection:
            rest = RELAYS[kind](connection, kafka.producer(shop.broker), batch=BATCH)
            while rest.step():
                continue
        tap.catch_up()
    assert code == -9
    return History.read(recorder.path)
