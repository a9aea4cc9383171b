"""What each way of reading on loses, reorders or waits for, step by step."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from outbox.relay.message import OutboxRow, text
from outbox.relay.publisher import Publisher
from outbox.relay.reading import Reader
from outbox.stage.counter import Counter, Shape, insert_first, overtake, overtaken, turns
from outbox.stage.readers import Held, MakeReader, finish, follow
from outbox.stage.shop import Shop
from outbox.table import insert_event, insert_step
from outbox.wrong.positions import BehindOpen, ByPair, ByPosition, PairRelay

from shared import kafka
from shared.event import Event
from shared.history import History
from shared.postgres import Connection, connect
from shared.wait import until
from shared.worker import Worker

WAYS: tuple[MakeReader, ...] = (ByPosition, BehindOpen, ByPair, Reader)


class Reading:
    """A reader of each way, and what it has seen."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.readers = {way: way(connection) for way in WAYS}
        self.seen: dict[MakeReader, list[tuple[str, int]]] = {way: [] for way in WAYS}

    def step(self) -> "Reading":
        for way in WAYS:
            self.look(way)
        return self

    def look(self, way: MakeReader) -> int:
        rows = [OutboxRow._make(row) for rows in self.readers[way].pages(100) for row in rows]
        self.seen[way] += [(text(row.id), int(row.sequence)) for row in rows]
        return len(rows)

    def finish(self) -> None:
        for way in WAYS:
            finish(self.connection, partial(self.look, way))

    def has(self, ident: str, *ways: MakeReader) -> bool:
        return all(ident in dict(self.seen[way]) for way in ways)

    def missed(self, *events: Event) -> set[MakeReader]:
        """The ways that have not seen all of these, once each, now that every transaction has ended."""
        self.finish()
        idents = sorted(event.id for event in events)
        return {way for way in WAYS if sorted(ident for ident, _ in self.seen[way]) != idents}


class Writer:
    """A transaction taken step by step."""

    def __init__(self, shop: Shop, event: Event) -> None:
        self.shop, self.event = shop, event
        self.connection = connect(shop.conninfo)
        self.connection.execute("begin")

    def row(self) -> None:
        insert_step(self.connection, self.event)

    def publish(self) -> None:
        insert_event(self.connection, self.event, self.shop.topic)

    def commit(self) -> None:
        self.connection.execute("commit")


@pytest.fixture
def writers(shop: Shop) -> Iterator[tuple[Writer, Writer]]:
    first, second = list(shop.events())[:2]
    with ExitStack() as opened:
        both = Writer(shop, first), Writer(shop, second)
        for writer in both:
            opened.callback(writer.connection.close)
        yield both


@pytest.fixture
def reading(connection: Connection) -> Reading:
    return Reading(connection)


@pytest.fixture
def counter(shop: Shop) -> Counter:
    """Four services at two orders."""
    made = Counter(shop.conninfo, shop.topic, shop.history, shop.seed, 40, orders=2, services=4, pause=0.001)
    made.open()
    return made


def test_a_lower_position_that_commits_later_is_lost_by_the_tutorial_only(
    writers: tuple[Writer, Writer], reading: Reading
) -> None:
    early, late = writers
    early.row()
    early.publish()  # position 1
    late.row()
    late.publish()  # position 2
    late.commit()
    reading.step()
    early.commit()
    assert reading.missed(early.event, late.event) == {ByPosition}


def test_a_lower_position_of_a_later_transaction_is_lost_by_the_half_fix_too(
    writers: tuple[Writer, Writer], reading: Reading
) -> None:
    older, younger = writers
    older.row()  # the lower xid
    younger.row()
    younger.publish()  # position 1
    older.publish()  # position 2
    older.commit()
    # Other tests' transactions may hold it back for a while.
    until("it to be read", lambda: reading.step().has(older.event.id, BehindOpen))
    younger.commit()
    assert reading.missed(older.event, younger.event) == {ByPosition, BehindOpen}


def test_the_pair_waits_for_open_transactions_and_windows_do_not(
    writers: tuple[Writer, Writer], reading: Reading
) -> None:
    early, late = writers
    early.row()
    late.row()
    late.publish()
    late.commit()
    reading.step()
    assert reading.has(late.event.id, Reader)
    assert not reading.has(late.event.id, ByPair)
    early.commit()
    reading.finish()
    assert reading.has(late.event.id, ByPair)


def test_overtaken_at_its_order_the_pair_reads_the_later_event_first(counter: Counter, reading: Reading) -> None:
    overtake(counter, lambda _: None)
    reading.finish()
    history = History.read(counter.history)
    of_one = {op.value: op.seq for op in history.written.values() if op.key == counter.keys[0]}
    read = {way: [number for ident, number in reading.seen[way] if ident in of_one] for way in (ByPair, Reader)}
    assert read == {ByPair: [2, 1], Reader: [1, 2]}


def test_overtaken_on_purpose_the_ways_by_positions_lose_for_certain(counter: Counter, reading: Reading) -> None:
    def passed(ident: str) -> None:
        until("it to be seen", lambda: reading.step().has(ident, ByPosition, BehindOpen, ByPair))

    overtake(counter, passed)
    reading.finish()
    missing = {way: len(History.read(counter.history).committed - dict(reading.seen[way]).keys()) for way in WAYS}
    assert missing == {ByPosition: 1, BehindOpen: 2, ByPair: 0, Reader: 0}


@pytest.mark.parametrize("shape", list(Shape)[:2])
def test_services_write_until_one_has_overtaken_another(shape: Shape, counter: Counter, connection: Connection) -> None:
    turns(counter, shape)
    rows = {ident for (ident,) in connection.execute("select id::text from outbox")}
    assert History.read(counter.history).committed == rows
    assert overtaken(connection) > 0


@pytest.mark.parametrize("way", [Reader, ByPair])
def test_a_reader_that_is_told_to_stop_reads_what_is_left(way: MakeReader, counter: Counter, tmp_path: Path) -> None:
    read = tmp_path / "read.jsonl"
    with Worker("reader", tmp_path / "log", follow, counter.conninfo, read, way, "reader", 60.0) as follower:
        follower.ready()  # it has looked once, and does not again before the minute is over
        overtake(counter, lambda _: None)
    assert {op.value for op in History.read(read).delivered} == History.read(counter.history).committed


def test_a_lag_is_from_commit_to_read_at_a_fifth_of_the_time() -> None:
    second, ms = 10**9, 10**6
    held = Held(second, 10.0, {"a": second, "b": 6 * second, "unread": 6 * second}, {"c": 12 * second}, {})
    read = {"a": second + 7 * ms, "b": 6 * second + 3 * ms, "c": 12 * second + ms}
    assert held.lags(read) == {0.0: [7.0], 4.0: [3.0], 10.0: [1.0]}


def test_an_event_inserted_before_the_lock_has_its_place_before_its_number(
    counter: Counter, connection: Connection
) -> None:
    insert_first(counter)
    numbers = connection.execute("select sequence from outbox order by position").fetchall()
    assert numbers == [(2,), (1,)]


def test_the_pair_relay_publishes_everything_once(counter: Counter, shop: Shop) -> None:
    overtake(counter, lambda _: None)
    with connect(counter.conninfo) as connection, closing(PairRelay(connection, Publisher(shop.broker))) as relay:
        finish(connection, relay.step)
    sent = [kafka.headers(message)["ce_id"].decode() for message in kafka.read_all(shop.broker, shop.topic)]
    assert sorted(sent) == sorted(History.read(counter.history).committed)
