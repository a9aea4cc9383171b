"""One contract for every relay, and what is special to some."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from outbox.parking import discard, parked, retry
from outbox.relay import Relay, pgoutput
from outbox.relay.cursor import CursorRelay
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.wal import WalRelay, lag
from outbox.stage.badrows import Bad, write_bad_rows
from outbox.stage.measures import await_counts
from outbox.stage.shop import RELAYS, RelayClass, Shop, at_work, make_relay, relay
from outbox.table import create, insert_event, pending
from outbox.windows import RelayWindow
from outbox.wrong.deleting import SkipLockedRelay
from outbox.wrong.mark_first import MarkFirstPublisher

from shared import kafka
from shared.checkers import check, duplicate_delivery, lost, reordered
from shared.errors import LabError
from shared.event import Event
from shared.faults import Kill
from shared.history import History, Recorder
from shared.postgres import Connection, connect, create_schema, drop_schema
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

BATCH = 10
REASONS = {
    Bad.UNKNOWN_TYPE: "there is no topic 'no.such.type'",
    Bad.NOT_JSON: "the payload is not",
    Bad.NUL_BYTE: "invalid character",
    Bad.MISSING_FIELDS: "missing: type, source",
    Bad.TOO_LARGE: "the broker refuses it",
}
every_relay = pytest.mark.parametrize("way", RELAYS)


def drain(shop: Shop, way: RelayClass, connection: Connection, at_least: int = 0) -> int:
    """Step until at least so many events were moved and a step moves none."""
    relaying = make_relay(shop, way, connection, BATCH)
    moved = 0

    def done() -> bool:
        nonlocal moved
        moved += (now := relaying.step())
        return now == 0 and moved >= at_least

    until(f"{at_least} events to be relayed", done)
    relaying.close()
    return moved


@every_relay
def test_it_publishes_every_event_once_and_in_order(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, recorder: Recorder
) -> None:
    shop_with_slot.write_backlog()
    with Tap("consumer", shop_with_slot.broker, [shop_with_slot.topic], recorder) as tap:
        assert drain(shop_with_slot, way, connection, 40) == 40
        tap.catch_up()
    assert not any(check(History.read(recorder.path)).values())


@every_relay
def test_what_it_publishes_is_the_event_that_was_written(
    way: RelayClass, shop_with_slot: Shop, connection: Connection
) -> None:
    shop = shop_with_slot
    shop.write_backlog()
    drain(shop, way, connection, shop.count)
    messages = kafka.read_all(shop.broker, shop.topic)
    events = [Event.from_kafka(kafka.key(m), kafka.value(m), kafka.headers(m)) for m in messages]
    assert sorted(events, key=lambda event: event.id) == sorted(shop.events(), key=lambda event: event.id)


@every_relay
def test_a_new_one_goes_on_where_the_last_one_stopped(
    way: RelayClass, shop_with_slot: Shop, connection: Connection
) -> None:
    shop_with_slot.write_backlog()
    drain(shop_with_slot, way, connection, 40)
    with connect(shop_with_slot.conninfo) as other:
        assert drain(shop_with_slot, way, other) == 0


@pytest.mark.fault
@every_relay
@pytest.mark.parametrize("window", RelayWindow)
def test_killed_in_any_window_it_loses_nothing(
    way: RelayClass, window: RelayWindow, shop_with_slot: Shop, recorder: Recorder, tmp_path: Path
) -> None:
    history = kill_and_finish(way, window, shop_with_slot, recorder, tmp_path)
    assert not lost(history)
    assert len(history.committed) == shop_with_slot.count
    if window in (RelayWindow.AFTER_PUBLISH, RelayWindow.AFTER_MARK):
        assert duplicate_delivery(history)  # the broker had them, and nobody had noted it


@pytest.mark.fault
def test_marking_first_loses_a_batch_when_killed_before_publishing(
    shop: Shop, recorder: Recorder, tmp_path: Path
) -> None:
    history = kill_and_finish(MarkFirstPublisher, RelayWindow.AFTER_COMMIT, shop, recorder, tmp_path, nth=2)
    assert len(lost(history)) == BATCH
    assert not duplicate_delivery(history)


@every_relay
def test_bad_rows_are_parked_with_their_reason_and_the_rest_goes_on(
    way: RelayClass, shop_with_slot: Shop, connection: Connection
) -> None:
    shop = shop_with_slot
    bad = write_bad_rows(connection, shop.topic)
    shop.write_backlog()
    drain(shop, way, connection, shop.count + len(bad))
    reasons = {one.id: one.reason for one in parked(connection)}
    assert reasons.keys() == set(bad.values())
    assert [reasons[ident] for what, ident in bad.items() if REASONS[what] not in reasons[ident]] == []
    assert len(kafka.read_all(shop.broker, shop.topic)) == shop.count


@every_relay
def test_a_parked_event_can_be_published_again_when_its_cause_is_gone(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, unique: str
) -> None:
    shop, event = shop_with_slot, next(shop_with_slot.events())
    insert_event(connection, event, missing := f"{unique}.late")
    drain(shop, way, connection, 1)
    kafka.create_topics(shop.broker, [missing])
    assert retry(connection, [event.id]) == 1
    drain(shop, way, connection, 1)
    assert len(kafka.read_all(shop.broker, missing)) == 1
    assert parked(connection) == []


@pytest.mark.fault
@every_relay
def test_killed_when_it_has_parked_it_parks_no_row_twice(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, tmp_path: Path
) -> None:
    shop = shop_with_slot
    bad = write_bad_rows(connection, shop.topic)
    killed = Worker("relay", tmp_path / "relay.log", relay, shop, way, 100, kill=Kill(RelayWindow.AFTER_MARK))
    assert killed.start().wait() == -9
    drain(shop, way, connection, len(bad))
    assert sorted(one.id for one in parked(connection)) == sorted(bad.values())


def test_a_parked_event_can_be_discarded(shop: Shop, connection: Connection) -> None:
    event = next(shop.events())
    insert_event(connection, event, "no.such.topic")
    drain(shop, CursorRelay, connection, 1)
    assert discard(connection, [event.id]) == 1
    assert parked(connection) == []


def test_the_wrong_publisher_marks_before_the_broker_has_the_batch(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    seen: list[int] = []

    def look(window: str) -> None:
        if window == RelayWindow.AFTER_COMMIT:
            with connect(shop.conninfo) as other:
                seen.append(shop.count - pending(other))
            seen.append(len(kafka.read_all(shop.broker, shop.topic)))

    make_relay(shop, MarkFirstPublisher, connection, BATCH, at=look).step()
    assert seen == [BATCH, 0]


def test_a_keepalive_confirms_nothing_that_is_in_doubt(shop_with_slot: Shop, connection: Connection) -> None:
    """Postgres asks how far the relay is, while a row that was read is not published yet; then the relay is gone."""
    shop, (first, second, *_) = shop_with_slot, shop_with_slot.events()
    relaying = make_relay(shop, WalRelay, connection)
    assert isinstance(relaying, WalRelay)
    insert_event(connection, first, shop.topic)
    until("the row to be read", lambda: (message := relaying._receive()) and relaying._take(message))
    end = connection.execute("select pg_current_wal_lsn()::text").fetchone() or ("0/0",)
    relaying._on_keepalive(pgoutput.lsn(end[0]), True)
    relaying.close()
    with at_work(make_relay(shop, WalRelay, connection)):
        insert_event(connection, second, shop.topic)
        until("the next event", lambda: second.id in published(shop))
    assert published(shop) == {first.id, second.id}


def published(shop: Shop) -> set[str]:
    return {kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)}


def test_a_second_polling_publisher_waits_for_the_batch_of_the_first(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    with connect(shop.conninfo) as other:
        other.execute("set lock_timeout = '200ms'")
        second = make_relay(shop, PollingPublisher, other, BATCH)
        blocked: list[Callable[[], object]] = []

        def contend(window: str) -> None:
            if window == RelayWindow.AFTER_READ:
                with pytest.raises(Exception, match="lock timeout"):
                    second.step()
                blocked.append(second.step)

        make_relay(shop, PollingPublisher, connection, BATCH, at=contend).step()
    assert len(blocked) == 1
    assert len(kafka.read_all(shop.broker, shop.topic)) == BATCH


def test_the_cursor_waits_for_nobody_and_passes_nothing(shop: Shop, connection: Connection) -> None:
    early, late = list(shop.events())[:2]
    with connect(shop.conninfo) as writer, writer.transaction():
        insert_event(writer, early, shop.topic)  # has the lower position, commits last
        insert_event(connection, late, shop.topic)
        assert drain(shop, CursorRelay, connection) == 1
    assert drain(shop, CursorRelay, connection, 1) == 1
    assert published(shop) == {early.id, late.id}


def test_a_cursor_that_begins_anew_goes_on_in_its_window(shop: Shop, connection: Connection) -> None:
    shop.write_backlog()
    first = CursorRelay(connection, Publisher(shop.broker), batch=10, pages=3)
    assert first.step() == 30
    first.close()
    assert CursorRelay(connection, Publisher(shop.broker), batch=10, pages=3).step() == 10
    assert len(kafka.read_all(shop.broker, shop.topic)) == 40


def test_a_window_that_ends_at_the_limit_of_a_step_is_noted_as_ended(shop: Shop, connection: Connection) -> None:
    """Or its rows would count as waiting, and keep their day, until the next event is written."""
    shop.write_backlog()
    relaying = make_relay(shop, CursorRelay, connection, shop.count // CursorRelay.pages)
    open_ = "select current is not null from outbox_checkpoint"
    assert (relaying.step(), connection.execute(open_).fetchone()) == (shop.count, (True,))
    assert (relaying.step(), connection.execute(open_).fetchone()) == (0, (False,))


def session_of(relaying: Relay) -> int:
    """The process id of the session by which a relay keeps others out."""
    session = relaying._session if isinstance(relaying, WalRelay) else relaying.connection  # type: ignore[attr-defined]
    return int(session.info.backend_pid)


@pytest.mark.parametrize("way", [CursorRelay, WalRelay])
def test_a_second_relay_with_the_same_note_is_refused_and_told_who_has_it(
    way: RelayClass, shop_with_slot: Shop, connection: Connection
) -> None:
    first = make_relay(shop_with_slot, way, connection)
    with connect(shop_with_slot.conninfo) as other:
        with pytest.raises(LabError, match=rf"\b{session_of(first)}\b"):
            make_relay(shop_with_slot, way, other, patience=0.1)
        first.close()
        make_relay(shop_with_slot, way, other).close()


def test_cursor_relays_of_two_names_or_two_outboxes_do_not_meet(
    shop: Shop, connection: Connection, postgres: Endpoint, unique: str
) -> None:
    elsewhere = create_schema(postgres, f"{unique}_other")
    create(elsewhere)
    with connect(shop.conninfo) as second, connect(elsewhere) as third:
        for session, name in ((connection, "cursor"), (second, "other"), (third, "cursor")):
            CursorRelay(session, Publisher(shop.broker), name=name, patience=0.1)
    drop_schema(postgres, f"{unique}_other")


@pytest.mark.fault
@pytest.mark.parametrize("way", [CursorRelay, WalRelay])
def test_one_that_hangs_keeps_others_out_and_killed_it_lets_the_next_one_in(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, tmp_path: Path
) -> None:
    with Worker("relay", tmp_path / "relay.log", relay, shop_with_slot, way, BATCH, recorded=False) as first:
        first.ready()
        first.pause()
        with pytest.raises(LabError):
            make_relay(shop_with_slot, way, connection, patience=0.1)
        first.kill()
        make_relay(shop_with_slot, way, connection).close()


def test_two_skip_locked_relays_reorder_an_aggregate(shop: Shop, connection: Connection, recorder: Recorder) -> None:
    """WRONG: the first relay holds event 1 of an order while the second one takes event 2 past it."""
    first, second = [event for event in shop.events() if event.subject == next(shop.events()).subject][:2]
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap, connect(shop.conninfo) as other:
        for event in (first, second):
            insert_event(connection, event, shop.topic)
        overtaking = make_relay(shop, SkipLockedRelay, other)
        at: Callable[[str], object] = lambda window: window == RelayWindow.AFTER_READ and overtaking.step()  # noqa: E731
        make_relay(shop, SkipLockedRelay, connection, at=at).step()  # type: ignore[arg-type]
        tap.catch_up()
    assert [event.sequence for event in tap.events] == [2, 1]
    assert len(reordered(History.read(recorder.path))) == 1


def test_run_ends_when_it_is_told_to(shop: Shop, connection: Connection) -> None:
    stop = threading.Event()
    running = threading.Thread(target=make_relay(shop, CursorRelay, connection).run, args=[stop])
    running.start()
    stop.set()
    running.join(30)
    assert not running.is_alive()


@every_relay
def test_as_a_process_it_says_that_it_is_at_work_by_the_session_that_looked(
    way: RelayClass, shop_with_slot: Shop, connection: Connection, tmp_path: Path
) -> None:
    with Worker("relay", tmp_path / "relay.log", relay, shop_with_slot, way, BATCH, recorded=False) as worker:
        session = worker.ready().session
        assert connection.execute("select from pg_stat_activity where pid = %s", [session]).fetchone() is not None
    await_counts(shop_with_slot.conninfo, session)
    assert connection.execute("select from pg_stat_activity where pid = %s", [session]).fetchone() is None


def kill_and_finish(
    way: RelayClass, window: RelayWindow, shop: Shop, recorder: Recorder, folder: Path, nth: int = 1
) -> History:
    """A relay killed in the window; the next one does the rest."""
    shop.write_backlog()
    with Tap("consumer", shop.broker, [shop.topic], recorder) as tap, connect(shop.conninfo) as connection:
        killed = Worker("relay", folder / "relay.log", relay, shop, way, BATCH, kill=Kill(window, nth))
        assert killed.start().wait() == -9
        if way is WalRelay:
            until("the slot to be let go", lambda: not slot_active(connection, shop.slot))
        with connect(shop.conninfo) as other, at_work(make_relay(shop, way, other, BATCH)):
            if issubclass(way, PollingPublisher):
                until("every event to be marked or deleted", lambda: pending(connection) == 0)
            else:
                tap.wait_for(shop.count)
            if way is WalRelay:
                until("the slot to be read to its end", lambda: lag(connection, shop.slot) < 1000)
        tap.catch_up()
    return History.read(recorder.path)


def slot_active(connection: Connection, slot: str) -> bool:
    row = connection.execute("select active from pg_replication_slots where slot_name = %s", [slot]).fetchone()
    return bool(row and row[0])
