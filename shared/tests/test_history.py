"""A history keeps what several processes recorded, also of those that died, and says what is known of each write."""

import os
import signal
from pathlib import Path

import pytest

from shared.errors import HistoryError
from shared.history import Action, History, Op, Outcome, Recorder
from shared.wait import until
from shared.worker import Worker

INVOKE, OK, FAIL, UNKNOWN = Outcome
LINES = 2_000


def writes(*outcomes: Outcome, process: str = "writer") -> list[Op]:
    """Successive words on one write."""
    return [Op(at, process, Action.WRITE, outcome, "e1") for at, outcome in enumerate(outcomes, 1)]


def known(*ops: Op) -> str:
    """What the history knows of e1: committed, aborted or neither."""
    history = History(ops)
    assert not history.committed & history.aborted
    return "committed" if "e1" in history.committed else "aborted" if "e1" in history.aborted else "in doubt"


def many_lines(path: Path, name: str) -> None:
    """Append lines of very different lengths."""
    with Recorder(path, name) as recorder:
        for number in range(LINES):
            recorder.record(Action.SEND, OK, f"{name}-{number}", seq=number + 1, note="x" * (number % 500))


def record_and_die(path: Path) -> None:
    """Record, then be killed before anything could be flushed."""
    recorder = Recorder(path, "victim")
    for number in range(100):
        recorder.record(Action.WRITE, OK, f"e{number}")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ((INVOKE, OK), "committed"),
        ((INVOKE, FAIL), "aborted"),
        ((INVOKE, UNKNOWN), "in doubt"),
        ((INVOKE,), "in doubt"),
        ((INVOKE, FAIL, INVOKE, OK), "committed"),
        ((INVOKE, FAIL, INVOKE, FAIL), "aborted"),
        ((INVOKE, UNKNOWN, FAIL), "aborted"),
        # a second attempt that is refused, because the first had been done, must not undo the first
        ((INVOKE, OK, INVOKE, FAIL), "committed"),
        ((INVOKE, OK, INVOKE), "committed"),
        ((INVOKE, UNKNOWN, INVOKE, FAIL), "in doubt"),
        ((INVOKE, INVOKE, FAIL), "in doubt"),
        ((INVOKE, UNKNOWN, INVOKE, FAIL, INVOKE, OK), "committed"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_the_words_on_a_write_say_what_is_known_of_it(outcomes: tuple[Outcome, ...], word: str) -> None:
    assert known(*writes(*outcomes)) == word


def test_a_final_read_settles_what_is_unknown() -> None:
    found = Op(9, "database", Action.READ, OK, "e1")
    assert known(*writes(INVOKE, UNKNOWN), found) == "committed"
    assert known(*writes(INVOKE), found) == "committed"


def test_a_final_read_commits_nothing_that_was_never_written() -> None:
    assert not History([Op(9, "database", Action.READ, OK, "other"), *writes(INVOKE)]).committed


@pytest.mark.parametrize(("outcome", "settled"), [(OK, True), (INVOKE, False), (FAIL, False), (UNKNOWN, False)])
def test_only_a_final_read_that_succeeded_settles(outcome: Outcome, settled: bool) -> None:
    assert History([Op(9, "database", Action.READ, outcome)]).settled is settled


def test_operations_are_in_the_order_of_time_and_equal_times_in_the_order_of_writing() -> None:
    ops = [Op(at, name, Action.SEND, OK) for at, name in ((2, "a"), (1, "b"), (1, "c"))]
    assert [op.process for op in History(ops).ops] == ["b", "c", "a"]


def test_a_group_reads_as_one_and_a_process_without_one_by_itself() -> None:
    assert Op(1, "one", Action.DELIVER, OK, group="billing").reader == "billing"
    assert Op(1, "one", Action.DELIVER, OK).reader == "one"


def test_every_field_comes_back_from_the_file(recorder: Recorder) -> None:
    op = Op(1, "p", Action.FAULT, UNKNOWN, "v", "k", 2, "t", 3, 4, 'a "note"\nof two lines', 5, "g")
    recorder.add(op)
    recorder.record(
        Action.DELIVER, OK, "v", key="k", seq=2, topic="t", partition=3, offset=4, note="n", process="q", group="h"
    )
    first, second = History.read(recorder.path).ops
    assert first == op
    assert second == Op(second.at, "q", Action.DELIVER, OK, "v", "k", 2, "t", 3, 4, "n", 0, "h")


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path, names = tmp_path / "history.jsonl", [f"writer-{number}" for number in range(4)]
    workers = [Worker(name, tmp_path / f"{name}.log", many_lines, path, name).start() for name in names]
    for worker in workers:
        worker.wait()
    history = History.read(path)
    assert len(history) == LINES * len(names)
    for name in names:
        assert [op.seq for op in history.ops if op.process == name] == list(range(1, LINES + 1))


def test_what_was_recorded_survives_kill_9_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert Worker("victim", tmp_path / "log", record_and_die, path).start().wait() == -signal.SIGKILL
    assert len(History.read(path)) == 100


def test_a_writer_killed_at_any_moment_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Worker("victim", tmp_path / "log", many_lines, path, "victim") as victim:
        until("the first lines", lambda: path.exists() and path.stat().st_size > 10_000)
        victim.kill()
    assert len(History.read(path)) > 0


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"at": 1', b'{"at":1,"process":"p","action":"x","outcome":"ok"}', b"\xff"]
)
def test_a_line_that_is_no_operation_is_named_with_file_and_line(line: bytes, recorder: Recorder) -> None:
    recorder.record(Action.SEND, OK)
    with recorder.path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(HistoryError, match=r"history\.jsonl:2 is not an operation"):
        History.read(recorder.path)


def test_a_history_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"none\.jsonl cannot be read: No such file"):
        History.read(tmp_path / "none.jsonl")


def test_several_files_make_one_history(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "deeper" / "b.jsonl"]
    for path in paths:
        with Recorder(path, path.stem) as recorder:
            recorder.record(Action.SEND, OK)
    assert [op.process for op in History.read(*reversed(paths)).ops] == ["a", "b"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    recorder = Recorder(pipe, "test")
    os.set_blocking(recorder._file, False)  # takes what fits, as a full disk does
    with pytest.raises(HistoryError, match="is the disk full"), recorder:
        recorder.record(Action.SEND, OK, note="x" * 1_000_000)
    os.close(reading)
