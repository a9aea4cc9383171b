"""The relay that is woken: it hears rings, does without them, and misses none that come while it is at work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outbox.relay.notified import PATIENCE, NotifiedPublisher, ring
from outbox.relay.publisher import Publisher
from outbox.service import Write, write_and_ring, write_with_outbox
from outbox.stage.rings import Writers, compare_writers
from outbox.stage.shop import Shop, relay, serve
from outbox.table import insert_event, pending
from outbox.wrong.notifying import ring_in_transaction

from shared import kafka
from shared.checkers import check
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

LONG = 600.0  # seconds: a relay that publishes within a test has not waited for this


class Counting(NotifiedPublisher):
    """Counts its polls, and can be made to do something in the middle of the first."""

    polls = 0
    meanwhile: threading.Event | None = None

    def step(self) -> int:
        moved = super().step()
        self.polls += 1
        if self.meanwhile:
            self.meanwhile.wait(10)
        return moved


@contextmanager
def running(relay: NotifiedPublisher) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def counting(shop: Shop, connection: Connection, interval: float = LONG) -> Counting:
    return Counting(connection, Publisher(shop.broker), interval=interval)


def wait_for_polls(relay: Counting, count: int) -> None:
    until(f"{count} polls", lambda: relay.polls >= count)


def wait_until_published(connection: Connection) -> None:
    until("every event to be published", lambda: pending(connection) == 0)


def test_a_ring_in_the_write_transaction_wakes_it(shop: Shop, connection: Connection) -> None:
    ring_in_transaction(shop.conninfo)
    with connect(shop.conninfo) as writer, running(relay := counting(shop, connection)):
        wait_for_polls(relay, 1)
        insert_event(writer, next(shop.events()), shop.topic)
        wait_until_published(writer)


def test_a_ring_after_the_commit_wakes_it(shop: Shop, connection: Connection) -> None:
    with connect(shop.conninfo) as writer, running(relay := counting(shop, connection)):
        wait_for_polls(relay, 1)
        insert_event(writer, next(shop.events()), shop.topic)
        ring(writer)
        wait_until_published(writer)


def test_without_a_ring_it_polls_once_an_interval(shop: Shop, connection: Connection) -> None:
    with connect(shop.conninfo) as writer, running(relay := counting(shop, connection, interval=0.05)):
        wait_for_polls(relay, 1)
        insert_event(writer, next(shop.events()), shop.topic)
        wait_until_published(writer)


def test_what_was_written_before_it_started_needs_no_ring(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    with connect(shop.conninfo) as other, running(counting(shop, connection)):
        wait_until_published(other)
    assert len(kafka.read_all(shop.broker, shop.topic)) == shop.count


def test_a_ring_that_comes_while_it_works_is_not_missed(shop: Shop, connection: Connection) -> None:
    relay = counting(shop, connection)
    relay.meanwhile = threading.Event()
    with connect(shop.conninfo) as writer, running(relay):
        wait_for_polls(relay, 1)  # it has polled, found nothing, and does not listen yet
        insert_event(writer, next(shop.events()), shop.topic)
        ring(writer)
        relay.meanwhile.set()
        wait_until_published(writer)


def test_a_ring_of_another_outbox_does_not_wake_it(shop: Shop, connection: Connection, postgres: Endpoint) -> None:
    with connect(postgres.url) as stranger, running(relay := counting(shop, connection)):
        wait_for_polls(relay, 1)
        ring(stranger)
        with connect(shop.conninfo) as writer:
            insert_event(writer, next(shop.events()), shop.topic)
            ring(writer)
            wait_until_published(writer)
    assert relay.polls == 2


def test_a_transaction_that_is_taken_back_rings_nobody(shop: Shop, connection: Connection) -> None:
    ring_in_transaction(shop.conninfo)
    with connect(shop.conninfo) as writer, running(relay := counting(shop, connection)):
        wait_for_polls(relay, 1)
        with writer.transaction(force_rollback=True):
            insert_event(writer, next(shop.events()), shop.topic)
        ring(writer)
        wait_for_polls(relay, 2)
    assert relay.polls == 2
    assert kafka.read_all(shop.broker, shop.topic) == []


@pytest.mark.parametrize("write", [write_with_outbox, write_and_ring])
def test_as_processes_they_publish_every_event_once_and_in_order(
    write: Write, shop: Shop, recorder: Recorder, tmp_path: Path
) -> None:
    if write is write_with_outbox:
        ring_in_transaction(shop.conninfo)
    with (
        Tap("consumer", shop.broker, [shop.topic], recorder) as tap,
        Worker("relay", tmp_path / "relay.log", relay, shop, NotifiedPublisher, interval=PATIENCE),
    ):
        Worker("service", tmp_path / "service.log", serve, shop, write).start().wait()
        assert tap.wait_for(shop.count)
    history = History.read(recorder.path)
    assert len(history.committed) == shop.count
    assert not any(check(history).values())


def test_writers_are_compared_in_turn(shop: Shop) -> None:
    quiet, ringing = (Writers(shop.conninfo, shop.topic, 2, 0.05, how) for how in (None, ring))
    rates = compare_writers([quiet, ringing], 3)
    assert [len(found) for found in rates] == [3, 3]
    assert min(map(min, rates)) > 0


def test_a_rate_is_never_0_however_short_the_time(shop: Shop) -> None:
    assert Writers(shop.conninfo, shop.topic, sessions=2, seconds=0.0).rate() > 0


def test_every_writer_leaves_a_row_for_each_event(shop: Shop, connection: Connection) -> None:
    Writers(shop.conninfo, shop.topic, sessions=3, seconds=0.1).rate()
    row = connection.execute("select (select count(*) from order_steps), (select count(*) from outbox)").fetchone()
    assert row is not None
    assert row[0] == row[1] > 0
