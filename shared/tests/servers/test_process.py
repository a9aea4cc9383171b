"""Which process it is, whatever the clock says, and when it has ended: a killed one may look like it too early."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from socket import create_connection

import psutil
import pytest

from shared.errors import ConfigurationError, PortTaken
from shared.servers import instance, native
from shared.servers.handle import own_instance, sweep
from shared.servers.process import ProcessId, await_end, launch
from shared.servers.server import Command
from shared.tests.servers.lab import Lab
from shared.wait import until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux works the time of its boot out anew")

# Its main thread ends at once, and is a zombie to all who look; the other one listens until somebody knocks.
LINGERING = """
import ctypes, os, socket, sys, threading
held = socket.socket()
held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
held.bind(("127.0.0.1", int(sys.argv[1])))
held.listen()
threading.Thread(target=lambda: (held.accept(), os._exit(0))).start()
ctypes.CDLL(None).pthread_exit(None)
"""


PARENT = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
    print(child.pid, flush=True)
    child.wait()
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the clock is set back at every look: Linux says of each boot that it was an hour earlier."""
    looks, booted = count(1), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted - 3600 * next(looks))


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[ProcessId, int]]:
    """A process, and the id of its child."""
    identity = launch(Command((sys.executable, "-c", PARENT), log := tmp_path / "log"), tmp_path)
    yield identity, int(until("its child", lambda: log.read_text()))
    identity.signal_family("SIGKILL")


def _earlier(folder: Path, created: float, owner: str = "null") -> Path:
    """A record as earlier versions wrote it, of a process that was made then."""
    process = f'{{"pid": {os.getpid()}, "created": {created}, "log": "log"}}'
    text = f'{{"server": "kafka", "provider": "native", "url": "x", "ports": {{}}, "processes": [{process}]'
    folder.mkdir(parents=True)
    (folder / "instance.json").write_text(f'{text}, "owner": {owner}}}')
    return folder


@on_linux
def test_process_and_its_children_are_the_same_whatever_is_done_to_the_clock(
    family: tuple[ProcessId, int], request: pytest.FixtureRequest
) -> None:
    identity, child = family
    request.getfixturevalue("clock")
    assert (identity.alive, ProcessId.of(identity.pid)) == (True, identity)
    assert [process.pid for process in identity.family()] == [identity.pid, child]


@on_linux
def test_servers_run_and_can_be_stopped_after_the_clock_was_set(lab: Lab, request: pytest.FixtureRequest) -> None:
    lab.stack().up(["postgres"])
    request.getfixturevalue("clock")
    assert {status.state for status in lab.stack().status() if status.server == "postgres"} == {"running"}
    assert lab.stack().down() == ["postgres"]
    assert lab.left() == []


@on_linux
def test_own_instance_is_not_swept_when_the_clock_is_set(lab: Lab, request: pytest.FixtureRequest) -> None:
    with own_instance("postgres", lab.settings()) as handle:
        request.getfixturevalue("clock")
        assert sweep(lab.settings()) == []
        assert handle.place.folder.exists()


def test_folder_of_an_own_instance_that_has_no_record_yet_is_not_swept(lab: Lab) -> None:
    (begun := lab.home / "own" / ".kafka-1").mkdir(parents=True)
    (left := lab.home / "own" / "kafka-2").mkdir()
    assert sweep(lab.settings()) == ["kafka-2"]
    assert (begun.exists(), left.exists()) == (True, False)


def test_record_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    me, gone = psutil.Process(), 2**22 + 1  # no process has an id above Linux' and macOS' limits
    record = instance.read(_earlier(tmp_path / "kafka", me.create_time(), f"[{gone}, 1.0]"))
    assert record
    assert [process.identity for process in record.processes] == [ProcessId.of(me.pid)]
    assert (record.dead, record.orphaned) == ([], True)


def test_record_of_an_earlier_version_that_may_mean_another_process_is_one_sentence(tmp_path: Path) -> None:
    folder = _earlier(tmp_path / "kafka", psutil.Process().create_time() - 3600)
    with pytest.raises(ConfigurationError, match=f"{folder}/instance.json: .* `ps -fp {os.getpid()}`"):
        instance.read(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process as a zombie while a thread of it runs")
def test_a_child_has_ended_with_its_last_thread_and_its_ports_are_free_then(tmp_path: Path) -> None:
    ports = native.free_ports({"client": 0})
    command = Command((sys.executable, "-c", LINGERING, str(ports["client"])), tmp_path / "log")
    process = psutil.Process(launch(command, tmp_path).pid)
    until("its main thread has ended", lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert await_end([process], 0.2) == [process]
    with pytest.raises(PortTaken):
        native.check_ports("lingering", ports)
    with closing(create_connection(("127.0.0.1", ports["client"]))):
        assert await_end([process], 10) == []
    native.check_ports("lingering", ports)
