"""Ctrl-C, SIGTERM and a closed terminal end a run once: it cleans up, stops its servers, and is exit 130."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shared.tests.servers.lab import COMMAND, Lab, gone, new_lab
from shared.wait import until

SCRIPT = '''"""Does it end?"""

import os
from pathlib import Path
from shared import postgres
from shared.experiment import Experiment, Run
from shared.wait import until

experiment = Experiment(title="A title", servers=("postgres",))

def wait(begun: Path) -> None:
    begun.touch()
    until("it may end", Path(os.environ["GO"]).exists, 600)

@experiment.run
def main(run: Run) -> None:
    run.cleanup(lambda: Path(os.environ["CLEAN"]).touch())
    run.schema()  # dropped at the end, which takes a while
    worker = run.worker("child", wait, begun := run.folder / "begun")
    until("it to begin", begun.exists)
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {worker.process.pid}\\n")
    worker.wait(600)
    run.claim("it ended by itself", True)

if __name__ == "__main__":
    experiment.main()
'''
TEST = """
import os, threading
from pathlib import Path

def test_it(postgres):
    Path(os.environ["CLEAN"]).touch()
    Path(os.environ["PIDS"]).write_text(str(os.getpid()))
    threading.Event().wait()
"""
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture
def lab() -> Iterator[Lab]:
    with new_lab() as made:
        (made.home / "a-lab").mkdir()
        (made.home / "a-lab" / "01_question.py").write_text(SCRIPT)
        more = {name: str(made.home / name) for name in ("CLEAN", "PIDS", "GO")}
        yield Lab(made.home, {**made.env, **more})


def script(lab: Lab) -> Path:
    return lab.home / "a-lab" / "01_question.py"


@contextmanager
def running(lab: Lab, *command: str) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """A command that runs the script, and the processes of the script and of its worker, which is at work."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=lab.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process, at_work(lab)
        finally:
            process.kill()


def at_work(lab: Lab) -> list[psutil.Process]:
    pids = lab.home / "PIDS"
    words = until("the run to be at work", lambda: pids.read_text().split() if pids.exists() else None, 120)
    return [psutil.Process(int(word)) for word in words]


def ended_in_order(lab: Lab, processes: list[psutil.Process]) -> None:
    until("all its processes to be gone", lambda: all(map(gone, processes)))
    assert (lab.left(), lab.record("postgres")) == ([], None)
    assert (lab.home / "CLEAN").exists()
    assert list(lab.home.glob("runs/*/*/*")) == []


@pytest.mark.fault
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_lab_run_alone_ends_the_experiment_too(lab: Lab, number: signal.Signals) -> None:
    with running(lab, COMMAND, "run", str(script(lab))) as (run, processes):
        os.kill(run.pid, number)
        _, said = run.communicate(timeout=100)
    assert run.returncode == 130
    assert said == "interrupted: servers stopped, nothing recorded\ninterrupted: what was started here is stopped\n"
    ended_in_order(lab, processes)


@pytest.mark.fault
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_a_script_ends_it_with_its_workers_and_servers(lab: Lab, number: signal.Signals) -> None:
    with running(lab, sys.executable, str(script(lab))) as (run, processes):
        os.kill(run.pid, number)
        _, said = run.communicate(timeout=100)
    assert (run.returncode, said) == (130, "interrupted: servers stopped, nothing recorded\n")
    ended_in_order(lab, processes)


@pytest.mark.fault
@pytest.mark.parametrize("command", [(COMMAND, "run"), (sys.executable,)], ids=["lab run", "script"])
def test_more_signals_do_not_break_off_the_clean_up_of_the_first(lab: Lab, command: tuple[str, ...]) -> None:
    with running(lab, *command, str(script(lab))) as (run, processes):
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # as from a terminal: to all
            os.killpg(run.pid, number)
        until("the clean-up to begin", lambda: (lab.home / "CLEAN").exists() or run.poll() is not None)
        for number in SIGNALS:
            os.killpg(run.pid, number)
        run.communicate(timeout=100)
    assert run.returncode == 130
    ended_in_order(lab, processes)


@pytest.mark.fault
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_a_test_session_stops_the_servers_that_it_has_started(lab: Lab, number: signal.Signals) -> None:
    (tests := lab.home / "test_it.py").write_text(TEST)
    command = sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", str(tests)
    with running(lab, *command) as (session, processes):
        os.kill(session.pid, number)
        session.communicate(timeout=100)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    ended_in_order(lab, processes)


@pytest.mark.fault
def test_closed_terminal_ends_the_run_and_its_servers(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    command = [COMMAND, "run", str(script(lab))]

    def control() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        command,
        env=lab.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=control,  # nothing else gives a process a terminal of its own
    ) as run:
        os.close(theirs)
        processes = at_work(lab)
        os.close(ours)
        assert run.wait(100) == 130
    ended_in_order(lab, processes)


@pytest.mark.fault
def test_run_under_nohup_outlives_its_terminal(lab: Lab) -> None:
    with running(lab, "nohup", COMMAND, "run", str(script(lab))) as (run, _):
        os.killpg(run.pid, signal.SIGHUP)
        (lab.home / "GO").touch()
        said, _ = run.communicate(timeout=100)
    assert (run.returncode, "it ended by itself" in said) == (0, True)
    assert len(list(lab.home.glob("runs/*/*/*/run.json"))) == 1
