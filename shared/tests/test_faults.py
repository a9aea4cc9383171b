"""A fault happens, is in the history, and a run without the fault it was made for proves nothing."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.errors import FaultNotFired, NotControllable
from shared.faults import Crash, Faults, Kill, hook, nowhere, require
from shared.history import Action, History, Op, Outcome, Recorder
from shared.proxy import Proxy
from shared.pytest_plugin import OwnStarter
from shared.wait import until
from shared.worker import Worker


class Untouchable:
    """A server that is not ours."""

    name = "yours"

    def kill(self) -> None:
        raise NotControllable(self.name, "it is your own")

    pause = resume = start = kill


def pass_windows(path: Path, window: str, nth: int) -> None:
    """Work in two windows, ten times, and record each pass."""
    with Recorder(path, "relay") as recorder:
        at = Crash(recorder, window, nth)
        for number in range(1, 11):
            recorder.record(Action.SEND, Outcome.OK, f"e{number}")
            at("after send")
            recorder.record(Action.EFFECT, Outcome.OK, f"e{number}")
            at("after effect")


def wait_for_ever() -> None:
    threading.Event().wait()


@pytest.fixture
def faults(recorder: Recorder) -> Faults:
    return Faults(recorder)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker("victim", tmp_path / "victim.log", wait_for_ever) as started:
        yield started


def noted(faults: Faults) -> list[tuple[str, str, bool]]:
    """The recorded faults: whom, what, and whether it lasted."""
    return [(op.process, op.note, op.until > op.at) for op in History.read(faults.recorder.path).faults]


@pytest.mark.fault
@pytest.mark.parametrize("nth", [1, 2, 7])
def test_a_crash_window_fires_at_the_nth_pass_only(nth: int, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    relay = Worker("relay", tmp_path / "log", pass_windows, path, "after send", nth).start()
    assert relay.wait() == -signal.SIGKILL
    history = History.read(path)
    assert [op.value for op in history.of(Action.SEND)] == [f"e{number}" for number in range(1, nth + 1)]
    assert len(list(history.of(Action.EFFECT))) == nth - 1


@pytest.mark.fault
def test_a_crash_is_in_the_history_although_its_process_died_of_it(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    Worker("relay", tmp_path / "log", pass_windows, path, "after effect", 3).start().wait()
    assert History.read(path).ops[-1].note == "SIGKILL after effect"
    require(History.read(path), "SIGKILL after effect")


def test_a_window_that_is_not_passed_often_enough_fires_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert Worker("relay", tmp_path / "log", pass_windows, path, "after send", 11).start().wait() == 0
    with pytest.raises(FaultNotFired, match=r"'SIGKILL after send' fired in this run \(seen: none\)"):
        require(History.read(path), "SIGKILL after send")


def test_a_fault_of_another_kind_is_not_the_one_that_was_meant() -> None:
    history = History([Op(1, "wire", Action.FAULT, Outcome.OK, note="cut")])
    require(history)
    with pytest.raises(FaultNotFired, match="seen: cut"):
        require(history, "SIGKILL")


def test_the_hook_of_normal_operation_does_nothing() -> None:
    nowhere("any window")


@pytest.mark.fault
def test_kill_ends_the_victim_and_is_noted(faults: Faults, worker: Worker) -> None:
    faults.kill(worker)
    assert worker.wait() == -signal.SIGKILL
    assert noted(faults) == [("victim", "SIGKILL", False)]


@pytest.mark.fault
def test_down_lasts_from_kill_to_restart(faults: Faults, worker: Worker) -> None:
    with faults.down(worker):
        assert not worker.alive()
    assert worker.alive()
    assert noted(faults) == [("victim", "SIGKILL, restart", True)]


@pytest.mark.fault
def test_paused_stands_still_for_the_time_of_the_block_also_when_it_fails(faults: Faults, worker: Worker) -> None:
    process = psutil.Process(worker.process.pid or 0)

    def fail_while_paused() -> None:
        with faults.paused(worker):
            until("it to stand still", lambda: process.status() == psutil.STATUS_STOPPED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_paused()
    until("it to go on", lambda: process.status() != psutil.STATUS_STOPPED)
    assert noted(faults) == [("victim", "SIGSTOP", True)]


@pytest.mark.fault
def test_cut_and_slow_are_over_after_the_block_and_noted(faults: Faults) -> None:
    with Proxy("wire", "127.0.0.1:9") as wire:
        with faults.cut(wire):
            assert wire._refusing
        with faults.slow(wire, 0.25):
            assert wire.delay == 0.25
        assert (wire._refusing, wire.delay) == (False, 0.0)
    assert noted(faults) == [("wire", "cut", True), ("wire", "slow by 250 ms", True)]


def test_a_fault_that_could_not_be_done_is_not_noted(faults: Faults) -> None:
    for fault in (faults.paused, faults.down):
        with pytest.raises(NotControllable), fault(Untouchable()):
            pytest.fail("the block must not begin")
    with pytest.raises(NotControllable):
        faults.kill(Untouchable())
    assert noted(faults) == []


@pytest.mark.fault
def test_a_real_server_is_killed_paused_and_answers_again(faults: Faults, own: OwnStarter) -> None:
    handle = own("postgres")
    with faults.paused(handle):
        main = handle.record.processes[0].identity.family()[0]
        until("it to stand still", lambda: main.status() == psutil.STATUS_STOPPED)
    with faults.down(handle):
        assert handle.record.dead
    assert handle.server.probe(handle.endpoint)
    assert [what for _, what, _ in noted(faults)] == ["SIGSTOP", "SIGKILL, restart"]


def test_a_worker_without_a_kill_has_the_hook_of_normal_operation(recorder: Recorder) -> None:
    assert hook(None, recorder) is nowhere
    made = hook(Kill("here", 3), recorder)
    assert isinstance(made, Crash)
    assert (made.window, made.left) == ("here", 3)
