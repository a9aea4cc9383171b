"""What processes and the journal have used, and sessions, gates and paces that several labs share."""

import os
import threading
import time
from pathlib import Path

import pytest

from shared.errors import DeadlineExceeded
from shared.gates import Gate
from shared.postgres import connect, number
from shared.run import slug
from shared.session import Session, keep_trying
from shared.threads import begin, paced
from shared.usage import Journal, Usage
from shared.worker import Worker, announce, until_told


def burn(seconds: float) -> None:
    """Use so much CPU time, and stay."""
    stop = until_told()
    while time.process_time() < seconds:
        pass
    announce()
    stop.wait()


def test_the_cpu_time_of_a_child_is_counted(tmp_path: Path) -> None:
    before = Usage.of([os.getpid()])
    with Worker("burner", tmp_path / "burner.log", burn, 0.3) as worker:
        worker.ready()
        used = Usage.of([os.getpid()]) - before
        alone = Usage.of([worker.identity.pid])
    assert used.cpu > 0.25  # the kernel counts in ticks of 10 ms
    assert alone.cpu > 0.25
    assert alone.memory > 1


def test_a_process_that_is_gone_uses_nothing(tmp_path: Path) -> None:
    worker = Worker("burner", tmp_path / "burner.log", burn, 0.0).start()
    pid = worker.identity.pid
    worker.kill()
    assert Usage.of([pid]) == Usage(0.0, 0.0, 0.0)


def test_a_commit_is_a_flush_and_a_length_of_the_journal(schema: str) -> None:
    before = Journal.read(schema)
    with connect(schema) as connection:
        connection.execute("create table noted (n int)")
    used = Journal.read(schema) - before
    assert used.flushes >= 1
    assert used.length > 0


def test_a_number_is_the_first_column_and_0_where_there_is_none(schema: str) -> None:
    with connect(schema) as connection:
        assert number(connection, "select %s::int + 1", 6) == 7
        assert number(connection, "select null::int") == number(connection, "select 1 where false") == 0


def test_a_session_that_was_lost_is_made_again_and_the_work_is_repeated(
    schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(schema)
    first = number(session.get(), "select pg_backend_pid()")
    with connect(schema) as other:
        other.execute("select pg_terminate_backend(%s, 60000)", [first])
    assert keep_trying(lambda: number(session.get(), "select pg_backend_pid()")) != first
    session.close()
    assert "again after" in capsys.readouterr().out  # the fault fired


def test_a_service_that_is_told_to_stop_tries_no_more() -> None:
    stop, session = threading.Event(), Session("host=127.0.0.1 port=1 connect_timeout=2")
    found = begin(lambda: keep_trying(session.get, stop=stop))
    stop.set()
    assert found.result(60) is None


def test_those_at_a_gate_go_on_when_it_is_opened(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "start")
    waiting = [begin(lambda name=name: gate.wait(name)) for name in ("a", "b")]  # type: ignore[misc]
    gate.await_all(2)
    assert gate.there() == {"a", "b"}
    assert not any(one.done() for one in waiting)
    gate.open()
    assert [one.result(60) for one in waiting] == [None, None]


def test_a_gate_that_nobody_opens_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded, match="the gate start to open"):
        Gate(tmp_path / "start", patience=0.1).wait("a")


def test_a_pace_is_kept_and_ends_when_it_is_told() -> None:
    began, stop = time.monotonic(), threading.Event()
    assert list(paced(range(11), 100.0)) == list(range(11))
    assert time.monotonic() - began >= 0.1
    stop.set()
    assert list(paced(range(11), 100.0, stop)) == []


def test_a_slug_is_a_part_of_any_name() -> None:
    assert slug("Publish, then mark (twice)") == "publish_then_mark_twice"
