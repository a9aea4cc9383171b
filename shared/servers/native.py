"""The native provider: servers as plain processes on 127.0.0.1, from wheels and jars."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import SystemRandom
from socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

import psutil

from shared.errors import LabError, NotAvailable, NotReady, PortTaken, ServerError, StartFailed
from shared.servers import instance
from shared.servers.instance import InstanceRecord, ProcessRecord
from shared.servers.process import ProcessId, launch, stop
from shared.servers.server import Command, Place, Server

PATIENCE = 10.0  # seconds that a server has to stop in order before it is killed
RECORDING = 120.0  # likewise, where it also writes what its start-up cache is made from: seconds of work, once
PROBE_PAUSE = 0.05  # seconds between two questions to a starting server

# Below the ephemeral ports of Linux (32768 and up) and macOS (49152 and up): while a server is down to be started
# again, a client of anything may be given an ephemeral port as its own, and a client that knocks may reach itself.
FREE = range(20_000, 32_768)


def start(
    server: Server,
    place: Place,
    cancel: threading.Event | None = None,
    *,
    own: bool = False,
    lent: bool = False,
) -> InstanceRecord:
    """Start a server and wait until it answers. On any failure, and on cancel, nothing of it stays behind.

    It is this process's `own`, or `lent` for a run, or neither: then it runs until `lab down`.
    Raises NotAvailable, PortTaken, StartFailed (it ended) or NotReady (it did not answer in time).
    """
    if reason := server.unavailable():
        raise NotAvailable(server.name, reason)
    check_ports(server.name, place.ports)
    began = time.monotonic()
    me = ProcessId.of(os.getpid())
    record = InstanceRecord(
        server=server.name,
        provider="native",
        url=server.url(place.ports),
        ports=dict(place.ports),
        owner=(me.pid, me.started) if own else None,
        lent=lent,
    )
    try:
        # Written before the first file and after every launch: whoever dies here leaves a record by which `lab down`
        # can clean up, and nobody takes a place that is being prepared for one that was left behind.
        record.write(place.folder)
        for command in server.commands(place):
            process = _process(command, launch(command, place.folder))
            record = record.model_copy(update={"processes": (*record.processes, process)}).write(place.folder)
        version = _await_answer(server, record, cancel or threading.Event())
        seconds = round(time.monotonic() - began, 2)
        return record.model_copy(update={"ready": True, "version": version, "seconds": seconds}).write(place.folder)
    except BaseException:
        end(record, place.folder, patience=1.0)
        raise


def revive(server: Server, place: Place, record: InstanceRecord) -> InstanceRecord:
    """Start the nodes that have ended, beside those that run. Raises PortTaken, StartFailed or NotReady."""
    began = time.monotonic()
    processes = list(record.processes)
    for node, command in enumerate(server.commands(place)):
        if not processes[node].identity.alive:
            await_ports(server.name, {role: place.ports[role] for role in command.roles})
            processes[node] = _process(command, launch(command, place.folder))
            # After every launch, as in `start`: whatever fails from here on, `lab down` finds what runs.
            record = record.model_copy(update={"processes": tuple(processes)}).write(place.folder)
    _await_answer(server, record, threading.Event())
    return record.model_copy(update={"seconds": round(time.monotonic() - began, 2)}).write(place.folder)


def end(record: InstanceRecord, folder: Path, patience: float | None = None) -> bool:
    """Stop the instance's processes, forget it, and make what start-up caches its first run allows.

    False when one could not be made: the next run records for it anew, and its stop makes it. Raises ServerError when
    one of the processes runs on, be it that it is another user's: then the record stays.
    """
    graceful = [process.graceful for process in record.processes]
    missing = [process for process in record.processes if process.finished and not process.finished.exists()]
    if patience is None:
        patience = RECORDING if missing and record.ready else PATIENCE
    stopped = stop([process.identity for process in record.processes], graceful, patience)
    if stopped.left:
        still = f"process {', '.join(map(str, stopped.left))} runs on: neither asking nor force has ended it."
        raise ServerError(record.server, still, record.processes[0].log)
    instance.forget(folder)
    if stopped.in_order and record.ready:
        _finish(missing)
    return all(process.finished.exists() for process in missing if process.finished)


def check_ports(server: str, ports: Mapping[str, int]) -> None:
    """Raise PortTaken, naming the holder, if one of the ports cannot be listened on."""
    for role, port in ports.items():
        with closing(socket(AF_INET, SOCK_STREAM)) as probe:
            probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise PortTaken(server, port, _holder(port), role) from None


def await_ports(server: str, ports: Mapping[str, int], seconds: float = 90.0) -> None:
    """Return when the ports of a dead process are free. Raises PortTaken when they are not in time.

    A killed JVM's sockets close with its last thread, a moment after its main thread is seen as gone. A connection that
    was given one of the ports as its own while nobody listened holds it for a minute after it closed (TIME_WAIT).
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check_ports(server, ports)
        except PortTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(PROBE_PAUSE)


def free_ports(roles: Mapping[str, int]) -> dict[str, int]:
    """A free port for every role, below the ephemeral ones. Raises LabError when there are not enough."""
    # Not the global generator: processes with the same seed would draw the same ports.
    candidates = iter(SystemRandom().sample(FREE, len(FREE)))
    with ExitStack() as held:  # all are held until the last is found, so that no two are the same
        return {role: _hold(candidates, held) for role in roles}


def _hold(candidates: Iterator[int], held: ExitStack) -> int:
    for port in candidates:
        probe = held.enter_context(closing(socket(AF_INET, SOCK_STREAM)))
        with suppress(OSError):  # taken: on to the next
            probe.bind(("127.0.0.1", port))
            return port
    raise LabError(f"no port is free from {min(FREE)} to {max(FREE)} on 127.0.0.1.")


def last_words(log: Path, lines: int = 1) -> str:
    """The end of a log, for an error message."""
    text = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return " ".join(line.strip() for line in text[-lines:])[:300]


def _process(command: Command, identity: ProcessId) -> ProcessRecord:
    return ProcessRecord(
        pid=identity.pid,
        started=identity.started,
        log=command.log,
        graceful=command.graceful,
        finish=command.finish,
        finished=command.finished,
    )


def _await_answer(server: Server, record: InstanceRecord, cancel: threading.Event) -> str:
    deadline = time.monotonic() + server.deadline
    problem: Exception | None = None
    while time.monotonic() < deadline:
        for process in record.dead:
            words = last_words(process.log)
            raise StartFailed(server.name, f"it ended before it answered. Last words: {words!r}.", process.log)
        try:
            return server.probe(record.endpoint())
        except Exception as error:  # the probe may raise anything: that is what "not ready yet" looks like
            problem = error
        if cancel.wait(PROBE_PAUSE):
            raise StartFailed(server.name, "the start was cancelled.")
    log = record.processes[0].log
    raise NotReady(server.name, f"it runs, but did not answer within {server.deadline:.0f} s ({problem}).", log)


def _finish(processes: Sequence[ProcessRecord]) -> None:
    """Make start-up caches, all at once. A failure costs speed, nothing else: what went wrong is in the log."""
    # The nodes of a cluster share one cache: it is made from what the first of them recorded.
    wanted = {process.finished: process for process in reversed(processes)}
    making = []
    for path, process in wanted.items():
        with process.log.open("ab") as log:
            making.append((path, process, subprocess.Popen(process.finish, stdout=log, stderr=log)))
    for path, process, maker in making:
        half = Path(next(word for word in process.finish if word.startswith("-XX:AOTCache=")).partition("=")[2])
        # Another user's cache cannot be written, and the JVM ends with 0 all the same.
        if maker.wait() == 0 and half.exists() and path:
            half.replace(path)


def _holder(port: int) -> str:
    """Who listens on the port, as far as we may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return "another process"
    return "another process"
