"""Our own code in a process of its own: it can be harmed, and it never outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from shared.errors import StartFailed
from shared.settings import ROOT
from shared.wait import until
from shared.worker import Worker, announce, package_of, until_told

PARENT = """
import sys, threading
from pathlib import Path
from shared.tests.test_worker import wait_for_ever
from shared.worker import Worker

if __name__ == "__main__":
    with Worker("child", Path(sys.argv[1]), wait_for_ever) as worker:
        print(worker.process.pid, flush=True)
        threading.Event().wait()
"""


def wait_for_ever() -> None:
    print("begun", os.getpid())
    threading.Event().wait()


def say(text: str) -> None:
    print(text)


def fail() -> None:
    raise ValueError("no such order")


def count_up(path: Path) -> None:
    """A file that grows as long as this process may run."""
    beat = threading.Event()
    with path.open("a", buffering=1) as file:
        while not beat.wait(0.002):
            file.write("x")
            file.flush()


def add(first: int, *, second: int) -> int:
    return first + second


def much(count: int) -> list[int]:
    return list(range(count))


def work_until_told(after: str) -> str:
    stop = until_told()
    announce({"pid": os.getpid()})
    stop.wait()
    return after


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "worker.log"


@pytest.fixture
def parent(log: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A process with a worker, and that worker."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, script, log], stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout
        yield process, psutil.Process(int(process.stdout.readline()))
        process.kill()


def begun(log: Path) -> bool:
    return log.exists() and "begun" in log.read_text()


def test_its_output_is_in_its_log(log: Path) -> None:
    assert Worker("teller", log, say, "hello").start().wait() == 0
    assert log.read_text() == "hello\n"


def test_the_imports_that_it_is_spared_are_those_of_its_function_also_with_arguments_given() -> None:
    assert (package_of(until), package_of(partial(until, "an end"))) == ("shared", "shared")


def test_it_is_another_process(log: Path) -> None:
    with Worker("sleeper", log, wait_for_ever) as worker:
        until("it to begin", lambda: begun(log))
        assert log.read_text() == f"begun {worker.process.pid}\n"
        assert worker.process.pid != os.getpid()


def test_its_error_is_told_with_its_last_words_and_its_log(log: Path) -> None:
    with pytest.raises(StartFailed, match="ValueError: no such order") as caught:
        Worker("shop", log, fail).start().wait()
    assert caught.value.log == log
    assert str(log) in str(caught.value)
    assert "Traceback" in log.read_text()


def test_what_it_returns_is_its_result(log: Path) -> None:
    assert Worker("adder", log, add, 1, second=2).start().result() == 3
    assert Worker("counter", log, much, 100_000).start().result() == much(100_000)


def test_it_announces_that_it_is_at_work_and_ends_when_told(log: Path) -> None:
    with Worker("sleeper", log, work_until_told, "done") as worker:
        assert worker.ready() == {"pid": worker.process.pid}
        assert worker.ready() == {"pid": worker.process.pid}
        worker.process.terminate()
        assert worker.result() == "done"


def test_one_that_ends_before_it_is_at_work_is_told(log: Path) -> None:
    with pytest.raises(StartFailed, match="no such order"):
        Worker("shop", log, fail).start().ready()
    with pytest.raises(StartFailed, match="had said no ready"):
        Worker("teller", log, say, "hello").start().ready()


def test_a_killed_one_has_no_result(log: Path) -> None:
    worker = Worker("sleeper", log, work_until_told, "done").start()
    worker.ready()
    worker.kill()
    with pytest.raises(StartFailed, match="had said no result"):
        worker.result()


def test_outside_of_a_worker_nobody_hears_an_announcement() -> None:
    announce("hello")


def test_a_kill_is_an_end_and_no_error(log: Path) -> None:
    worker = Worker("victim", log, wait_for_ever).start()
    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    assert not worker.alive()


def test_after_a_kill_it_can_be_started_again(log: Path) -> None:
    with Worker("victim", log, wait_for_ever) as worker:
        first = worker.process.pid
        worker.kill()
        assert worker.start().process.pid != first
        assert worker.alive()


def test_one_that_does_not_end_in_time_is_stopped_and_told(log: Path) -> None:
    worker = Worker("slow", log, wait_for_ever).start()
    with pytest.raises(StartFailed, match=r"did not end within 0\.1 s"):
        worker.wait(0.1)
    assert not worker.alive()


def test_paused_it_does_nothing_and_resumed_it_goes_on(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "beats"
    with Worker("heart", log, count_up, path) as worker:
        until("its first beats", lambda: path.exists() and path.stat().st_size > 3)
        worker.pause()
        process = psutil.Process(worker.process.pid or 0)
        until("it to stand still", lambda: process.status() == psutil.STATUS_STOPPED)
        size = path.stat().st_size
        worker.resume()
        until("it to go on", lambda: path.stat().st_size > size)


def test_a_paused_one_can_be_stopped(log: Path) -> None:
    worker = Worker("sleeper", log, wait_for_ever).start()
    worker.pause()
    worker.stop()
    assert worker.wait() == -signal.SIGTERM


@pytest.mark.fault
def test_one_that_ignores_sigterm_is_stopped_all_the_same(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.worker.PATIENCE", 0.1)
    worker = Worker("stubborn", log, ignore_sigterm).start()
    until("it to begin", lambda: begun(log))
    worker.stop()
    assert worker.wait() == -signal.SIGKILL


def test_stopping_twice_is_no_error_and_never_starting_is(log: Path) -> None:
    worker = Worker("sleeper", log, wait_for_ever)
    with pytest.raises(StartFailed, match="never started"):
        worker.wait()
    worker.start()
    worker.stop()
    worker.stop()
    assert not worker.alive()


@pytest.mark.fault
def test_it_dies_with_its_parent(parent: tuple["subprocess.Popen[str]", psutil.Process]) -> None:
    process, child = parent
    assert child.is_running()
    process.kill()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


@pytest.mark.fault
def test_ctrl_c_leaves_no_worker(parent: tuple["subprocess.Popen[str]", psutil.Process]) -> None:
    process, child = parent
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()
