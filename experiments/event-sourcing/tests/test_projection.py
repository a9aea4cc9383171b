"""Projections: once per event whatever happens, bad events parked or the end, lag, and the wrong ways."""

import random
import string
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sourcing import checkpoint, parking
from sourcing.audit import everything
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.projection import Change, Policy, Projection, ProjectionStopped, Projector, install
from sourcing.shop.read_models import PROJECTIONS, OrderSummary, ProductSales, RevenuePerDay
from sourcing.stage import badevents, lives, traffic, truth
from sourcing.stage.kills import project
from sourcing.stage.traffic import behind, changes, wrong_rows
from sourcing.windows import ProjectionWindow
from sourcing.wrong.projectors import ByPosition, CheckpointFirst, ModelFirst, PerEvent

from shared.errors import DeadlineExceeded
from shared.faults import Kill, require
from shared.history import History
from shared.postgres import Connection, connect
from shared.wait import until
from shared.worker import Worker

SUMMARY = OrderSummary()
every_model = pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)


class NextSummary(OrderSummary):
    """The next release of the same projection."""

    version = 2


@pytest.fixture
def orders(connection: Connection) -> int:
    """Twenty orders and all projections, which have read nothing yet; how many events that is."""
    install(connection, *PROJECTIONS.values())
    return lives.write(connection, 7, 20)


def differs(connection: Connection, projection: Projection) -> int:
    expected = truth.fold(everything(PostgresStore(connection)))[projection.name]
    return truth.wrong(expected, truth.read(connection, projection.name))


@every_model
@pytest.mark.parametrize("batch", [7, 1000])
def test_a_read_model_is_the_fold_of_all_events(
    projection: Projection, batch: int, orders: int, connection: Connection
) -> None:
    assert differs(connection, projection) > 0
    assert Projector(connection, projection, batch=batch).catch_up() == orders
    assert differs(connection, projection) == 0


@pytest.mark.fault
@pytest.mark.parametrize("window", ProjectionWindow)
def test_killed_in_any_window_it_takes_every_event_once(
    window: ProjectionWindow, orders: int, connection: Connection, schema: str, tmp_path: Path
) -> None:
    kill(schema, Projector, window, tmp_path)
    assert behind(connection) > 0
    Projector(connection, SUMMARY).catch_up()
    assert (changes(connection), wrong_rows(connection)) == (orders, 0)


@pytest.mark.fault
@pytest.mark.parametrize(("way", "off"), [(CheckpointFirst, -15), (ModelFirst, 15)])
def test_a_checkpoint_apart_from_the_model_drops_or_doubles_a_batch(
    way: type[Projector], off: int, orders: int, connection: Connection, schema: str, tmp_path: Path
) -> None:
    kill(schema, way, ProjectionWindow.BETWEEN, tmp_path)
    way(connection, SUMMARY).catch_up()
    assert behind(connection) == 0
    assert changes(connection) - orders == off


def kill(schema: str, way: type[Projector], window: ProjectionWindow, folder: Path) -> None:
    """A projector that dies in its second batch of 15 events."""
    history = folder / "history.jsonl"
    with Worker("projector", folder / "log", project, schema, SUMMARY, way, 15, history, Kill(window, 2)) as worker:
        worker.wait()
    require(History.read(history), f"SIGKILL {window}")


def test_reading_on_by_position_passes_over_an_event_that_commits_late(
    store: PostgresStore, connection: Connection, schema: str
) -> None:
    install(connection, SUMMARY)
    order = NewEvent("OrderPlaced", {"customer": "somebody"})
    with connect(schema) as late, late.transaction():
        PostgresStore(late).append("order-late", [order])
        store.append("order-early", [order])
        projector = ByPosition(connection, SUMMARY)
        assert projector.step() == 1
    assert projector.step() == 0
    assert changes(connection) == 1


def test_the_projector_waits_for_an_event_that_commits_late(
    store: PostgresStore, connection: Connection, schema: str
) -> None:
    install(connection, SUMMARY)
    order = NewEvent("OrderPlaced", {"customer": "somebody"})
    with connect(schema) as late, late.transaction():
        PostgresStore(late).append("order-late", [order])
        store.append("order-early", [order])
        projector = Projector(connection, SUMMARY)
        assert projector.step() == 0
    assert (projector.catch_up(), changes(connection)) == (2, 2)


def test_two_projectors_of_one_projection_do_not_count_twice(orders: int, connection: Connection, schema: str) -> None:
    with connect(schema) as other:
        one, two = Projector(connection, SUMMARY, batch=10), Projector(other, SUMMARY, batch=10)
        while one.step() + two.step():
            continue
    assert (changes(connection), wrong_rows(connection)) == (orders, 0)


def test_a_projector_whose_work_was_done_by_another_has_caught_up(
    orders: int, connection: Connection, schema: str
) -> None:
    idle = Projector(connection, SUMMARY)
    with connect(schema) as other:
        assert Projector(other, SUMMARY).catch_up() == orders
    assert (idle.catch_up(), idle.place) == (0, checkpoint.end(connection))


def test_a_transaction_per_event_comes_to_the_same(orders: int, connection: Connection) -> None:
    assert PerEvent(connection, SUMMARY).catch_up() == orders
    assert wrong_rows(connection) == 0


def test_other_categories_are_passed(store: PostgresStore, connection: Connection) -> None:
    install(connection, SUMMARY)
    store.append("account-1", [NewEvent("AccountOpened", {"owner": "somebody"})])
    assert Projector(connection, SUMMARY).catch_up() == 1
    assert (changes(connection), parking.parked(connection)) == (0, [])


def test_a_deleted_stream_takes_its_row_along(orders: int, store: PostgresStore, connection: Connection) -> None:
    Projector(connection, SUMMARY).catch_up()
    store.delete("order-000003")
    Projector(connection, SUMMARY).catch_up()
    assert set(truth.read(connection, SUMMARY.name)) == {f"order-{n:06d}" for n in range(20)} - {"order-000003"}


@pytest.mark.parametrize("batch", [4, 1000])
def test_a_bad_event_is_parked_with_its_reason_and_its_stream_is_held(
    batch: int, orders: int, connection: Connection
) -> None:
    badevents.write(connection)
    Projector(connection, SUMMARY, batch=batch).catch_up()
    parked = {(one.stream, one.version): one.reason for one in parking.parked(connection)}
    for stream, reason in badevents.REASONS.items():
        assert reason in parked.pop((stream, 2))
        assert parked.pop((stream, 3)) == "behind version 2, which is parked"
    assert (parked, wrong_rows(connection, but=badevents.BAD)) == ({}, 0)


def test_what_is_parked_is_the_event_byte_for_byte(connection: Connection) -> None:
    install(connection, SUMMARY)
    badevents.write(connection)
    Projector(connection, SUMMARY).catch_up()
    columns = "stream, version, type, schema_version, id, data, metadata, xid::text, position, recorded_at"
    stored = connection.execute(f"select {columns} from events where version > 1").fetchall()  # noqa: S608
    assert sorted(connection.execute(f"select {columns} from parked_events").fetchall()) == sorted(stored)  # noqa: S608
    assert len(stored) == 2 * len(badevents.BAD)


def test_the_policy_to_stop_takes_what_comes_before_and_names_the_event(orders: int, connection: Connection) -> None:
    badevents.write(connection)
    with pytest.raises(ProjectionStopped, match="before event 2 of stream 'order-unknown-type'"):
        Projector(connection, SUMMARY, policy=Policy.STOP).catch_up()
    assert changes(connection) == orders + 1
    assert parking.parked(connection) == []


@pytest.mark.parametrize("stream", sorted(badevents.BAD))
def test_stopped_at_any_kind_of_bad_event_it_has_taken_the_one_before(stream: str, connection: Connection) -> None:
    install(connection, SUMMARY)
    badevents.write(connection, [stream])
    with pytest.raises(ProjectionStopped) as caught:
        Projector(connection, SUMMARY, policy=Policy.STOP).catch_up()
    assert (caught.value.event.stream, caught.value.event.version) == (stream, 2)
    assert changes(connection) == 1


def test_a_retry_by_a_mended_program_handles_all_that_is_parked_in_order(connection: Connection) -> None:
    install(connection, SUMMARY)
    badevents.write(connection)
    Projector(connection, SUMMARY).catch_up()
    mended = Projector(connection, SUMMARY, read=badevents.mended)
    assert mended.retry() == 2 * len(badevents.BAD)
    assert parking.parked(connection) == []
    assert truth.read(connection, SUMMARY.name)["order-not-json"][2:] == (900, 0, 3)


def test_a_retry_that_fails_again_counts_the_attempt_and_keeps_the_order(connection: Connection) -> None:
    install(connection, SUMMARY)
    badevents.write(connection, ["order-too-large"])
    projector = Projector(connection, SUMMARY)
    projector.catch_up()
    assert projector.retry() == 0
    assert [(one.version, one.attempts) for one in parking.parked(connection)] == [(2, 2), (3, 1)]


def test_a_program_of_another_version_does_not_touch_the_tables(orders: int, connection: Connection) -> None:
    Projector(connection, SUMMARY).catch_up()
    with pytest.raises(checkpoint.ProjectionReplaced, match="tables are of version 1, this program is of version 2"):
        Projector(connection, NextSummary())


def test_lag_counts_events_and_seconds_of_each_projection(orders: int, connection: Connection) -> None:
    Projector(connection, SUMMARY).catch_up()
    Projector(connection, ProductSales(), batch=10).step()
    late, there = sorted(checkpoint.lag(connection), key=lambda one: -one.events)
    assert (late.events, late.seconds > 0) == (orders - 10, True)
    assert (there.projection, there.events, there.seconds) == (SUMMARY.name, 0, 0.0)


def test_who_waits_for_the_checkpoint_sees_his_own_write(orders: int, connection: Connection) -> None:
    projector = Projector(connection, SUMMARY)
    is_there: Callable[[], bool] = lambda: checkpoint.includes(connection, SUMMARY.name, "order-000019", 1)  # noqa: E731
    assert not is_there()
    projector.catch_up()
    assert is_there()


def test_a_key_too_long_for_its_index_is_the_fault_of_its_event(
    orders: int, store: PostgresStore, connection: Connection
) -> None:
    long = "".join(random.Random(7).choices(string.ascii_letters, k=9_000))
    line = NewEvent("LineAdded", {"product": long, "quantity": 1, "cents": 1})
    store.append("order-1", [NewEvent("OrderPlaced", {"customer": "c"}), line, NewEvent("OrderPaid", {"cents": 1})])
    sales = ProductSales()
    Projector(connection, sales).catch_up()
    [parked] = parking.parked(connection)
    assert (parked.stream, parked.version, "index row" in parked.reason) == ("order-1", 3, True)
    assert [one.events for one in checkpoint.lag(connection) if one.projection == sales.name] == [0]


class Faulty(OrderSummary):
    """Its owner's code fails at one customer."""

    error: Exception

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        if any(change.data.get("customer") == "odd" for change in changes):
            raise self.error
        super().handle(connection, changes)


OWN = [RecursionError("deep"), AttributeError("x"), ZeroDivisionError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]


@pytest.mark.parametrize("error", [*OWN, KeyError("a\0\ud83d"), ValueError("a\0\ud83d")], ids=repr)
def test_whatever_the_owner_s_code_makes_of_an_event_parks_it(
    error: Exception, orders: int, store: PostgresStore, connection: Connection
) -> None:
    store.append("order-odd", [NewEvent("OrderPlaced", {"customer": "odd"})])
    faulty = Faulty()
    faulty.error = error
    Projector(connection, faulty).catch_up()
    [parked] = parking.parked(connection)
    assert (parked.stream, parked.reason.startswith(type(error).__name__)) == ("order-odd", True)
    assert (changes(connection), wrong_rows(connection, but=["order-odd"])) == (orders, 0)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_read_model_and_checkpoint_are_written_by_one_transaction(
    name: str, store: PostgresStore, connection: Connection
) -> None:
    """Each row says which transaction wrote it (PostgreSQL documentation, "System Columns": xmin)."""
    install(connection, PROJECTIONS[name])
    line = NewEvent("LineAdded", {"product": "tea", "quantity": 1, "cents": 5})
    store.append("order-1", [NewEvent("OrderPlaced", {"customer": "c"}), line, NewEvent("OrderPaid", {"cents": 5})])
    Projector(connection, PROJECTIONS[name]).catch_up()
    both = f"select distinct xmin::text from {name} union select xmin::text from checkpoints"  # noqa: S608
    assert len(connection.execute(both).fetchall()) == 1


def test_two_projectors_at_the_same_batch_count_the_revenue_once(
    orders: int, connection: Connection, schema: str
) -> None:
    """The second one begins its transaction while the first one's is open, and must wait for it to end."""
    revenue = RevenuePerDay()
    with connect(schema) as other, ThreadPoolExecutor(1) as pool:
        second = Projector(other, revenue)
        waiting: list[Future[int]] = []

        def meanwhile(window: str) -> None:
            if window == ProjectionWindow.BETWEEN and not waiting:
                waiting.append(pool.submit(second.step))
                until("the second to wait, or to be done", lambda: waiting[0].done() or blocked(connection, other))

        Projector(connection, revenue, at=meanwhile).catch_up()
        waiting[0].result(60)
    assert differs(connection, revenue) == 0


def blocked(connection: Connection, other: Connection) -> bool:
    query = "select cardinality(pg_blocking_pids(%s)) > 0"
    return connection.execute(query, [other.info.backend_pid]).fetchone() == (True,)


def test_a_rate_is_not_waited_for_where_nothing_comes(
    orders: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "PATIENCE", 0.1)
    assert traffic.rate(connection, SUMMARY, 10, orders) > 0
    with pytest.raises(DeadlineExceeded, match="the next batch"):
        traffic.rate(connection, SUMMARY, 1000, orders + 1)
