"""Old events copied into a new store in today's shape: the same to every reader, however often it is killed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from sourcing.errors import SchemaMismatch, UnknownEventType, VersionGap
from sourcing.event import NewEvent, data_of
from sourcing.evolution.rewriting import FoldDiffers, Window, prepare, rewrite, verify
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.evolved import EvolvedOrder, upcasters
from sourcing.stage.generations import sales
from sourcing.store import NO_STREAM, StreamMetadata
from sourcing.upcasting import Upcasters

from shared.postgres import connect, create_schema, drop_schema
from shared.servers.server import Endpoint
from shared.wait import until

SOLD = sales(seed=7, count=12, lines=4)
ROWS = (
    "select stream, version, type, schema_version, id, data, metadata, recorded_at from events order by xid, position"
)


class Stopped(RuntimeError):
    """A rewriting stopped from outside."""


@pytest.fixture
def new(postgres: Endpoint, unique: str) -> Iterator[str]:
    """Where the new program's store is, empty, as a conninfo URL."""
    name = f"{unique}_new"
    conninfo = create_schema(postgres, name)
    prepare(conninfo)
    prepare(conninfo)  # as a rewriting does that is started again
    yield conninfo
    drop_schema(postgres, name)


@pytest.fixture
def target(new: str) -> Iterator[PostgresStore]:
    with connect(new) as connection:
        yield PostgresStore(connection)


@pytest.fixture
def source(store: PostgresStore) -> PostgresStore:
    for sale, events in SOLD:
        store.append(sale.stream, events, NO_STREAM)
    return store


def test_every_stream_folds_as_before_without_any_upcaster(source: PostgresStore, target: PostgresStore) -> None:
    rewrite(source, target.connection, upcasters())
    repository = Repository(target, EvolvedOrder)
    assert [repository.load(sale.id).state() for sale, _ in SOLD] == [sale.state for sale, _ in SOLD]
    assert verify(source, target, upcasters()) == len(SOLD)


def test_the_old_store_is_not_touched(source: PostgresStore, target: PostgresStore) -> None:
    before = source.connection.execute(ROWS).fetchall()
    rewrite(source, target.connection, upcasters())
    assert source.connection.execute(ROWS).fetchall() == before


@pytest.mark.parametrize("window", Window)
def test_stopped_anywhere_and_started_again_it_comes_to_the_same(
    window: Window, source: PostgresStore, target: PostgresStore
) -> None:
    def stop(passed: str) -> None:
        if passed == window:
            raise Stopped(window)

    for _ in range(3):
        with pytest.raises(Stopped):
            rewrite(source, target.connection, upcasters(), batch=7, hook=stop)
    rewrite(source, target.connection, upcasters(), batch=7)
    assert verify(source, target, upcasters()) == len(SOLD)
    assert rewrite(source, target.connection, upcasters()) == (0, 0)


def test_ids_and_times_are_kept_and_the_second_half_of_a_split_gets_its_own(
    source: PostgresStore, target: PostgresStore
) -> None:
    rewrite(source, target.connection, upcasters())
    stream, [old, *_] = SOLD[0][0].stream, reversed(list(source.read(SOLD[0][0].stream)))
    *_, paid, shipped = target.read(stream)
    assert (paid.type, paid.id, paid.recorded_at) == ("OrderPaid", old.id, old.recorded_at)
    assert (shipped.type, shipped.recorded_at) == ("OrderShipped", old.recorded_at)
    assert shipped.id != old.id


def test_rewritten_a_second_time_from_the_first_event_every_event_has_the_same_id(
    source: PostgresStore, target: PostgresStore
) -> None:
    """Whoever has read the first result, and remembers ids, must not take the second one for other events."""
    rewrite(source, target.connection, upcasters())
    ids = target.connection.execute("select id from events order by stream, version").fetchall()
    target.connection.execute("truncate events, rewritten; update rewriting set xid = 0, position = 0")
    rewrite(source, target.connection, upcasters())
    assert target.connection.execute("select id from events order by stream, version").fetchall() == ids


def test_the_origin_of_every_event_is_noted(source: PostgresStore, target: PostgresStore) -> None:
    rewrite(source, target.connection, upcasters())
    query = "select version, type, first, number from rewritten where stream = %s order by version"
    rows = target.connection.execute(query, [SOLD[0][0].stream]).fetchall()
    assert rows[:3] == [(1, "OrderCreated", 1, 1), (2, "OrderViewed", 2, 0), (3, "LineAdded", 2, 1)]
    assert rows[-1] == (7, "OrderPaidAndShipped", 6, 2)


def test_the_order_of_all_events_is_kept(source: PostgresStore, target: PostgresStore) -> None:
    for sale, _ in reversed(SOLD):
        source.append(sale.stream, [NewEvent("OrderShipped", {"carrier": "again"})])
    rewrite(source, target.connection, upcasters(), batch=7)
    before = [event.id for event in source.read_all() if event.type != "OrderViewed"]
    assert [event.id for event in target.read_all() if event.id in set(before)] == before


def test_of_two_at_once_one_waits_and_goes_on_behind_the_other(
    source: PostgresStore, target: PostgresStore, schema: str, new: str
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        entered.set()
        go_on.wait(10)

    with ThreadPoolExecutor(2) as pool, connect(schema) as old, connect(new) as other, connect(new) as watching:
        first = pool.submit(rewrite, source, target.connection, upcasters(), 30, hold)
        assert entered.wait(10)
        second = pool.submit(rewrite, PostgresStore(old), other, upcasters(), 30)
        blocked = "select cardinality(pg_blocking_pids(%s)) > 0", [other.info.backend_pid]
        until("the second one to wait", lambda: watching.execute(*blocked).fetchone() == (True,), 10)
        go_on.set()
        assert first.result(10).read + second.result(10).read == len(source.read_all())
    assert verify(source, target, upcasters()) == len(SOLD)


def test_what_is_current_goes_over_byte_for_byte(source: PostgresStore, target: PostgresStore) -> None:
    rewrite(source, target.connection, upcasters())
    stream = SOLD[2][0].stream
    copied = [(event.version, event.data, event.metadata, event.id) for event in target.read(stream)]
    assert copied == [(event.version, event.data, event.metadata, event.id) for event in source.read(stream)]


def test_what_was_written_meanwhile_follows(source: PostgresStore, target: PostgresStore) -> None:
    rewrite(source, target.connection, upcasters())
    late = NewEvent("LineAdded", {"product": "late", "quantity": 1, "cents": 5}, 2)
    source.append(SOLD[0][0].stream, [late])
    assert rewrite(source, target.connection, upcasters()) == (1, 1)
    assert verify(source, target, upcasters()) == len(SOLD)


def test_an_event_that_nobody_knows_stops_it_and_is_named(source: PostgresStore, target: PostgresStore) -> None:
    source.append("order-x", [NewEvent("OrderLost", {})])
    with pytest.raises(UnknownEventType, match="event 1 of stream 'order-x', type 'OrderLost'"):
        rewrite(source, target.connection, upcasters(), batch=7)
    steps = upcasters()
    steps.drop("OrderLost", 1)
    rewrite(source, target.connection, steps, batch=7)
    assert verify(source, target, steps) == len(SOLD) + 1


def test_a_deleted_stream_stays_deleted(source: PostgresStore, target: PostgresStore) -> None:
    source.delete(SOLD[0][0].stream)
    rewrite(source, target.connection, upcasters())
    assert list(target.read(SOLD[0][0].stream)) == []
    assert verify(source, target, upcasters()) == len(SOLD)


def test_a_truncated_stream_begins_at_the_same_event(source: PostgresStore, target: PostgresStore) -> None:
    stream = SOLD[0][0].stream
    source.set_metadata(stream, StreamMetadata(5, {"owner": "Ada"}))
    rewrite(source, target.connection, upcasters())
    assert target.metadata(stream) == StreamMetadata(4, {"owner": "Ada"})
    assert verify(source, target, upcasters()) == len(SOLD)


def test_a_scavenged_stream_keeps_its_versions(source: PostgresStore, target: PostgresStore) -> None:
    stream = SOLD[2][0].stream
    source.set_metadata(stream, StreamMetadata(3))
    source.scavenge()
    rewrite(source, target.connection, upcasters())
    assert [event.version for event in target.read(stream)] == [event.version for event in source.read(stream)]


def test_a_stream_with_a_gap_is_refused(source: PostgresStore, target: PostgresStore) -> None:
    source.connection.execute("delete from events where stream = %s and version = 3", [SOLD[0][0].stream])
    with pytest.raises(VersionGap, match="it comes after version 2"):
        rewrite(source, target.connection, upcasters())


def test_the_verification_finds_a_changed_copy(source: PostgresStore, target: PostgresStore) -> None:
    rewrite(source, target.connection, upcasters())
    last = list(target.read(SOLD[3][0].stream))[-2]
    changed = str({**data_of(last), "cents": 1}).replace("'", '"').encode()
    target.connection.execute("update events set data = %s where id = %s", [changed, last.id])
    with pytest.raises(FoldDiffers, match=f"1 of 12 streams read differently, as {SOLD[3][0].stream}"):
        verify(source, target, upcasters())


def test_what_a_step_makes_and_json_cannot_say_is_named_before_it_is_written(
    store: PostgresStore, target: PostgresStore
) -> None:
    store.append("order-1", [NewEvent("Paid", {"cents": 1})], NO_STREAM)
    steps = Upcasters({"Paid": 2})
    steps.step("Paid", 1)(lambda data: {"amount": Decimal(data["cents"]) / 100})
    with pytest.raises(SchemaMismatch, match=r"event 1 of stream 'order-1', type 'Paid': .*\['amount'\] is a Decimal"):
        rewrite(store, target.connection, steps)
    assert list(target.read("order-1")) == []
