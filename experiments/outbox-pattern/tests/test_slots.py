"""A slot under watch, and the way back when it is gone."""

import threading
from collections.abc import Iterator

import pytest
from outbox.operating.slots import MB, Slot, first_missing, log_on_disk, look, publish_from
from outbox.relay import wal
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay
from outbox.stage.shop import Shop, make_relay
from outbox.table import insert_event

from shared import kafka
from shared.checkers import check
from shared.errors import LabError
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.servers.handle import own_instance
from shared.settings import Settings
from shared.tap import Tap
from shared.wait import until

ALARM = 100 * MB


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        (Slot("s", True, "reserved", 1 * MB, None), ""),
        (Slot("s", False, "reserved", 1 * MB, 50 * MB), ""),
        (Slot("s", False, "extended", 101 * MB, 50 * MB), "keeps 101 MB of log: nobody reads it"),
        (Slot("s", True, "extended", 101 * MB, None), "keeps 101 MB of log: its reader is behind"),
        (Slot("s", False, "unreserved", 1 * MB, 0), "is unreserved"),
        (Slot("s", False, "lost", 0, None), "is lost"),
    ],
)
def test_the_alarm_says_what_is_wrong(slot: Slot, words: str) -> None:
    assert slot.alarm(ALARM).endswith(words)
    assert bool(slot.alarm(ALARM)) == bool(words)


def test_a_slot_that_nobody_reads_keeps_what_is_written(shop_with_slot: Shop, connection: Connection) -> None:
    before = look(connection, shop_with_slot.slot)
    shop_with_slot.write_backlog()
    after = look(connection, shop_with_slot.slot)
    assert not after.active
    assert after.kept > before.kept
    assert log_on_disk(connection) > 0


def test_a_slot_that_is_read_is_active(shop_with_slot: Shop, connection: Connection) -> None:
    relay = make_relay(shop_with_slot, WalRelay, connection)
    assert isinstance(relay, WalRelay)
    assert look(connection, shop_with_slot.slot).active
    relay.close()


def test_a_slot_that_is_not_there_is_an_error(connection: Connection) -> None:
    with pytest.raises(LabError, match="no replication slot 'nothing'"):
        look(connection, "nothing")


def test_tear_down_takes_the_slot_from_a_reader_that_still_has_it(shop_with_slot: Shop, connection: Connection) -> None:
    relay = make_relay(shop_with_slot, WalRelay, connection)
    assert isinstance(relay, WalRelay)
    wal.tear_down(shop_with_slot.conninfo, shop_with_slot.slot)
    with pytest.raises(LabError, match="no replication slot"):
        look(connection, shop_with_slot.slot)
    relay.close()


def test_nothing_is_missing_when_everything_was_published(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    assert first_missing(connection, [event.id for event in shop.events()]) is None


def test_from_the_first_missing_event_on_the_table_is_published(shop: Shop, connection: Connection) -> None:
    events = list(shop.events())
    for event in events:
        insert_event(connection, event, shop.topic)
    start = first_missing(connection, [event.id for event in events[:30]])
    assert start is not None
    assert publish_from(connection, Publisher(shop.broker), start) == 10
    sent = {kafka.headers(m)["ce_id"].decode() for m in kafka.read_all(shop.broker, shop.topic)}
    assert sent == {event.id for event in events[30:]}


def test_a_second_recovery_begins_where_it_is_told(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    for _ in range(2):
        start = first_missing(connection, [])
        assert start is not None
        assert publish_from(connection, Publisher(shop.broker), start) == shop.count


def test_a_transaction_that_was_open_when_the_slot_was_made_is_waited_for(shop: Shop, connection: Connection) -> None:
    """Its commit is before or after the slot's beginning; the table must be read until it has ended."""
    early, late = list(shop.events())[:2]
    with connect(shop.conninfo) as writer:
        writer.execute("begin")
        insert_event(writer, early, shop.topic)
        insert_event(connection, late, shop.topic)
        ending = threading.Timer(0.2, lambda: writer.execute("commit"))
        ending.start()
        assert publish_from(connection, Publisher(shop.broker), 0) == 2
        ending.join()


def test_a_slot_lost_and_made_anew_loses_nothing_when_the_table_is_read_in_between(
    shop_with_slot: Shop, connection: Connection, recorder: Recorder
) -> None:
    shop = shop_with_slot
    wal.tear_down(shop.conninfo, shop.slot)
    shop.write_backlog()
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        wal.set_up(shop.conninfo, shop.slot, shop.slot)
        start = first_missing(connection, tap.ids)
        assert start is not None
        publish_from(connection, Publisher(shop.broker), start)
        relay = make_relay(shop, WalRelay, connection)
        assert isinstance(relay, WalRelay)
        until("the slot to be read", lambda: relay.step() == 0)
        relay.close()
        tap.catch_up()
    history = History.read(recorder.path)
    assert len(history.committed) == shop.count
    assert not any(check(history).values())


@pytest.fixture
def small(settings: Settings) -> Iterator[Connection]:
    """A Postgres that keeps next to nothing for a slot."""
    limits = {"max_slot_wal_keep_size": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with own_instance("postgres", settings, None, limits) as handle, connect(handle.endpoint.url) as opened:
        yield opened


@pytest.mark.fault
def test_past_the_limit_a_slot_is_lost_and_the_alarm_says_so(small: Connection) -> None:
    small.execute("select pg_create_logical_replication_slot('left', 'pgoutput')")
    assert look(small, "left").alarm(ALARM) == ""
    for _ in range(4):
        small.execute("select pg_logical_emit_message(false, 'noise', repeat('x', 8000000))")
        small.execute("select pg_switch_wal()")
        small.execute("checkpoint")
    assert look(small, "left") == Slot("left", False, "lost", 0, None)
    assert look(small, "left").alarm(ALARM) == "slot left is lost"
