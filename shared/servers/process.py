"""Processes that outlive their starter, and how to be sure that a process id still means the same process."""

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from shared.errors import LabError
from shared.servers.server import Command

BOOT = Path("/proc/sys/kernel/random/boot_id")
STOPPED = psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD
UNPRIVILEGED = "nobody"  # exists on every Unix
END_PAUSE = 0.02  # seconds between two looks at an ending process


@dataclass(frozen=True)
class ProcessId:
    """A process for sure: its id and the moment it was made (ids are used again, moments are not)."""

    pid: int
    started: str  # see `moment`

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """The process that has this id now. Raises psutil.NoSuchProcess."""
        return cls(pid, moment(pid))

    @classmethod
    def recorded(cls, pid: int, created: float) -> "ProcessId":
        """The process of a record that keeps seconds since the epoch, as it was once. Raises LabError in doubt."""
        try:
            now = psutil.Process(pid).create_time()
            identity = cls.of(pid)
        except psutil.NoSuchProcess:
            return cls(pid, "")  # which no process has
        if abs(now - created) >= 1.0:
            told = f"it was written by an earlier version, and whether process {pid} is still the one that it names"
            raise LabError(f"{told} cannot be told. Look with `ps -fp {pid}`, stop it if it is, and remove the file.")
        return identity

    def find(self) -> psutil.Process | None:
        """The process, if it runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            same = moment(self.pid) == self.started
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @property
    def alive(self) -> bool:
        return self.find() is not None

    def family(self) -> list[psutil.Process]:
        """The process and all below it."""
        process = self.find()
        return [process, *_below(self.pid)] if process else []

    def signal(self, name: str) -> bool:
        """Send a signal to the process alone; False when it is gone, or not ours to tell."""
        process = self.find()
        if process is None:
            return False
        return _try_signal(process, name)

    def signal_family(self, name: str) -> None:
        """Send a signal to the process and all below it: a paused server must not go on in its children."""
        for process in self.family():
            _try_signal(process, name)

    def await_stopped(self, seconds: float = 5.0) -> None:
        """Return when a SIGSTOP has taken effect: the signal is delivered later than it is sent."""
        deadline = time.monotonic() + seconds
        while any(_state(process) not in STOPPED for process in self.family()) and time.monotonic() < deadline:
            time.sleep(END_PAUSE)

    def rss_mb(self) -> float:
        """Resident memory of the process and all below it, shared pages counted once per process, in MB."""
        return sum(_rss(process) for process in self.family()) / 1e6


def moment(pid: int) -> str:
    """When the process was made, by a clock that nobody sets. Raises psutil.NoSuchProcess.

    On Linux the boot's id and the clock ticks since that boot (proc(5), field 22 of stat): psutil's create_time adds
    the time of the boot, which is worked out from the time of day, and moves whenever that is set. Elsewhere the kernel
    keeps the time of day as it was at the start, whatever comes later, and `ps` shows it to the second.
    """
    try:
        if BOOT.exists():
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # a name may hold anything
            return f"{BOOT.read_bytes().decode().strip()}/{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    ask = ["ps", "-o", "lstart=", "-p", str(pid)]
    done = subprocess.run(ask, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"})
    if done.returncode:
        raise psutil.NoSuchProcess(pid)
    return done.stdout.decode().strip()


def launch(command: Command, folder: Path) -> ProcessId:
    """Start a process in a session of its own, so that Ctrl-C at the terminal does not reach it."""
    user = unprivileged_user() if command.unprivileged else {}
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.env},
            cwd=folder,
            start_new_session=True,
            **user,
        )
    _children.add(process)
    return ProcessId.of(process.pid)


@dataclass(frozen=True)
class Stopped:
    """How processes ended that were told to: `left` are those that run on, whatever was done to them."""

    in_order: bool  # no force was needed
    left: list[int]


def stop(ids: Sequence[ProcessId], graceful: Sequence[str], patience: float) -> Stopped:
    """Stop processes in order, then by force after `patience` seconds."""
    families = [process for identity in ids for process in identity.family()]
    for identity in ids:
        identity.signal("SIGCONT")  # a paused process would not see the signal
    told = [identity.signal(name) for identity, name in zip(ids, graceful, strict=True)]
    alive = await_end(families, patience if any(told) else 0)
    forced = [process for process in alive if _try_signal(process, "SIGKILL")]
    await_end(forced, 5)
    return Stopped(not alive, [process.pid for process in _uncollected(alive)])


def await_end(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return when the processes have ended, or the time has; returns those that still run.

    A killed JVM looks like a zombie before its last thread is gone, so a child of ours has ended when it is collected.
    Another's stays a zombie while its parent does not collect it: another `lab`, or a container without init.
    """
    deadline = time.monotonic() + seconds
    while (alive := _uncollected(processes)) and time.monotonic() < deadline:
        time.sleep(END_PAUSE)
    return alive


def reap() -> None:
    """Collect ended children, so that none stays a zombie."""
    for child in list(_children):
        if child.poll() is not None:
            _children.discard(child)


def unprivileged_user() -> dict[str, Any]:
    """Popen arguments that drop root's rights; none when we have none."""
    if os.geteuid() != 0:
        return {}
    import pwd

    return {"user": UNPRIVILEGED, "group": pwd.getpwnam(UNPRIVILEGED).pw_gid, "extra_groups": []}


# Popen objects are kept until they are reaped: a dropped one warns that its process still runs. Threads share them.
_children: set["subprocess.Popen[bytes]"] = set()


def _below(pid: int) -> Iterator[psutil.Process]:
    """All below a process, by their parents' ids alone.

    Process.children leaves out who is older than its parent, and while the clock is set any of them may seem so.
    """
    children = defaultdict(list)
    for each in psutil.pids():
        with suppress(psutil.NoSuchProcess):  # ended since
            process = psutil.Process(each)
            children[process.ppid()].append(process)
    todo = [pid]
    while todo:
        found = children.pop(todo.pop(), [])
        todo += [process.pid for process in found]
        yield from found


def _try_signal(process: psutil.Process, name: str) -> bool:
    try:
        process.send_signal(signal.Signals[name])
        return True
    except psutil.NoSuchProcess:
        reap()
        return False
    except psutil.AccessDenied:  # another user's: whoever waits for its end will see that it runs on
        return False


def _uncollected(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    reap()
    ours = {child.pid for child in _children}
    return [process for process in processes if process.pid in ours or _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
