"""When a process has ended: a killed one may look like it while its last threads still hold its ports."""

import sys
from contextlib import closing
from pathlib import Path
from socket import create_connection

import psutil
import pytest

from shared.errors import PortTaken
from shared.servers import native
from shared.servers.process import await_end, launch
from shared.servers.server import Command
from shared.wait import until

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
