"""A rebuild beside the read model that people see, and the switch."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sourcing import checkpoint, parking
from sourcing.projection import Change, Policy, ProjectionStopped, Projector, install
from sourcing.rebuild import rebuild
from sourcing.shop.read_models import OrderSummary
from sourcing.stage import badevents, lives
from sourcing.stage.kills import rebuild_killed
from sourcing.stage.traffic import await_looks, behind, changes, watch, wrong_rows
from sourcing.windows import ProjectionWindow, RebuildWindow
from sourcing.wrong.emptied import start_again

from shared.faults import Kill, require
from shared.history import History
from shared.postgres import Connection, connect
from shared.wait import until
from shared.worker import Worker

SUMMARY = OrderSummary()
BLOCKS = "select true from pg_stat_activity where %s = any (pg_blocking_pids(pid))"


class WithoutLines(OrderSummary):
    """The next release: one column less, one more."""

    version = 2
    schema = OrderSummary.schema.replace("lines      jsonb", "cart jsonb")
    load = OrderSummary.load.replace("lines", "cart")
    store = OrderSummary.store.replace("excluded.lines", "excluded.cart").replace("lines)", "cart)")


class Halfway(OrderSummary):
    """Dies in the midst of a rebuild."""

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        super().handle(connection, changes)
        raise psycopg.OperationalError("the power is gone")


@pytest.fixture
def live(connection: Connection) -> int:
    """Forty orders in the read model; how many events."""
    install(connection, SUMMARY)
    events = lives.write(connection, 7, 40)
    Projector(connection, SUMMARY).catch_up()
    return events


@contextmanager
def looking(schema: str, folder: Path) -> Iterator[dict[str, int]]:
    """A reader's process; what it saw is there after the block."""
    seen: dict[str, int] = {}
    with Worker("reader", folder / "log", watch, schema, folder / "seen.json") as reader:
        until("the reader to look", (folder / "seen.json").exists)
        yield seen
        reader.stop()
    seen.update(json.loads((folder / "seen.json").read_text()))


def test_a_rebuild_makes_right_what_went_wrong(live: int, connection: Connection, schema: str) -> None:
    connection.execute("update order_summary set total = total + 1, status = 'lost'")
    assert wrong_rows(connection) == 40
    assert rebuild(schema, SUMMARY).events == live
    assert wrong_rows(connection) == 0


def test_a_reader_never_sees_less_than_before(live: int, schema: str, tmp_path: Path) -> None:
    with looking(schema, tmp_path) as seen:
        rebuild(schema, SUMMARY, batch=20)
    assert (seen["fell"], seen["tables"]) == (0, 2)


def test_rebuilt_in_place_it_is_seen_empty(live: int, connection: Connection, schema: str, tmp_path: Path) -> None:
    with looking(schema, tmp_path) as seen:
        start_again(connection, SUMMARY)
        await_looks(tmp_path / "seen.json")
        Projector(connection, SUMMARY).catch_up()
    assert seen["empty"] > 0
    assert wrong_rows(connection) == 0


def test_what_is_written_during_the_rebuild_is_in_the_new_tables_once(
    live: int, connection: Connection, schema: str
) -> None:
    running = Projector(connection, SUMMARY, batch=10)

    def meanwhile(events: int) -> None:
        lives.write(connection, events, 1, f"meanwhile{events}x")
        running.catch_up()

    built = rebuild(schema, SUMMARY, batch=20, progress=meanwhile)
    running.catch_up()
    assert built.events > live
    assert (behind(connection), wrong_rows(connection)) == (0, 0)


def test_a_running_projector_goes_on_with_the_new_tables(live: int, connection: Connection, schema: str) -> None:
    running = Projector(connection, SUMMARY)
    rebuild(schema, SUMMARY)
    written = lives.write(connection, 8, 5, "later")
    assert running.catch_up() == written
    assert wrong_rows(connection) == 0


def test_the_first_tables_of_a_projection_can_be_built_so(connection: Connection, schema: str) -> None:
    install(connection)
    lives.write(connection, 7, 5)
    rebuild(schema, SUMMARY)
    assert (behind(connection), wrong_rows(connection)) == (0, 0)


def test_the_new_tables_may_have_another_shape_and_the_old_program_keeps_out(
    live: int, connection: Connection, schema: str
) -> None:
    old = Projector(connection, SUMMARY)
    rebuild(schema, WithoutLines())
    lives.write(connection, 8, 1, "later")
    with pytest.raises(checkpoint.ProjectionReplaced, match="tables are of version 2, this program is of version 1"):
        old.catch_up()
    assert Projector(connection, WithoutLines()).catch_up() > 0
    assert connection.execute("select cart from order_summary").fetchone()


def test_a_rebuild_that_fails_leaves_the_live_tables_alone(live: int, connection: Connection, schema: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="the power is gone"):
        rebuild(schema, Halfway())
    assert wrong_rows(connection) == 0
    assert rebuild(schema, SUMMARY).events == live


@pytest.mark.fault
@pytest.mark.parametrize("window", RebuildWindow)
def test_killed_in_any_window_it_leaves_whole_tables_and_can_be_done_again(
    window: RebuildWindow, live: int, connection: Connection, schema: str, tmp_path: Path
) -> None:
    connection.execute("update order_summary set total = total + 1")
    arguments = schema, SUMMARY, 20, tmp_path / "history.jsonl", Kill(window)
    with Worker("rebuild", tmp_path / "log", rebuild_killed, *arguments) as rebuilding:
        rebuilding.wait()
    require(History.read(tmp_path / "history.jsonl"), f"SIGKILL {window}")
    assert wrong_rows(connection) == (0 if window is RebuildWindow.SWITCHED else 40)
    assert (rebuild(schema, SUMMARY).events, wrong_rows(connection)) == (live, 0)


def test_it_stops_at_a_bad_event_if_told_so(live: int, connection: Connection, schema: str) -> None:
    badevents.write(connection)
    with pytest.raises(ProjectionStopped):
        rebuild(schema, SUMMARY, policy=Policy.STOP)
    assert (changes(connection), parking.parked(connection)) == (live, [])


def test_what_the_rebuild_parks_takes_the_place_of_what_was_parked(
    live: int, connection: Connection, schema: str
) -> None:
    badevents.write(connection)
    Projector(connection, SUMMARY).catch_up()
    assert rebuild(schema, SUMMARY).parked == len(parking.parked(connection)) == 2 * len(badevents.BAD)
    assert rebuild(schema, SUMMARY, badevents.mended).parked == 0
    assert parking.parked(connection) == []


def test_the_switch_waits_for_a_reader_and_then_has_all_that_the_old_tables_had(
    live: int, connection: Connection, schema: str
) -> None:
    with connect(schema) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from order_summary")

        def leave(attempts: int) -> None:
            lives.write(connection, attempts, 2, "late")
            Projector(connection, SUMMARY).catch_up()
            reader.execute("commit")

        assert rebuild(schema, SUMMARY, waiting=leave).attempts >= 2
    assert (behind(connection), wrong_rows(connection)) == (0, 0)


def test_the_switch_waits_for_a_batch_that_the_live_projector_has_in_hand(
    live: int, connection: Connection, schema: str
) -> None:
    """Its events came after the rebuild had caught up: without them the new tables would show less than the old."""
    in_hand, stepping = threading.Event(), list[Future[int]]()
    with connect(schema) as reader, connect(schema) as other, ThreadPoolExecutor(1) as pool:
        reader.execute("begin")
        reader.execute("select count(*) from order_summary")

        def hold(window: str) -> None:
            if window == ProjectionWindow.BETWEEN:
                in_hand.set()
                until("the switch to wait", lambda: reader.execute(BLOCKS, [other.info.backend_pid]).fetchone())

        def leave(attempts: int) -> None:
            if not stepping:
                lives.write(connection, 9, 2, "late")
                reader.execute("commit")
                stepping.append(pool.submit(Projector(other, SUMMARY, at=hold).step))
                in_hand.wait(60)

        rebuild(schema, SUMMARY, waiting=leave)
        assert (behind(connection), wrong_rows(connection)) == (0, 0)
        assert stepping[0].result(60) > 0
