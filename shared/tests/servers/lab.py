"""The `lab` command as a user runs it: a process of its own, with a home and ports that nobody else has."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from shared.servers import instance, native
from shared.servers.catalogue import SERVERS
from shared.servers.instance import InstanceRecord
from shared.servers.stack import Stack
from shared.settings import Settings
from shared.wait import until

COMMAND = str(Path(sys.executable).parent / "lab")
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Lab:
    """One LAB_HOME and the environment of its commands."""

    home: Path
    env: Mapping[str, str]

    def __call__(self, *words: str, **more: str) -> Done:
        """Run `lab WORDS` to its end, with LAB_* variables such as KAFKA="localhost:1" besides."""
        env = {**self.env, **{f"LAB_{name}": value for name, value in more.items()}}
        return subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, timeout=200, check=False)

    @contextmanager
    def running(self, *words: str, **more: str) -> Iterator["subprocess.Popen[str]"]:
        """`lab WORDS` in a session of its own, as from a terminal of its own."""
        env = {**self.env, **{f"LAB_{name}": value for name, value in more.items()}}
        pipe = subprocess.PIPE
        command = [COMMAND, *words]
        with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def settings(self, **more: str) -> Settings:
        own = {name: value for name, value in self.env.items() if name.startswith("LAB_")}
        return Settings.load({**own, **{f"LAB_{name}": value for name, value in more.items()}})

    def stack(self, **more: str) -> Stack:
        return Stack(self.settings(**more))

    def folder(self, server: str) -> Path:
        return self.home / "servers" / server

    def record(self, server: str) -> InstanceRecord | None:
        return instance.read(self.folder(server))

    def process(self, server: str) -> psutil.Process:
        """The first process of a server that has one, or is about to."""
        started = until(f"{server} has a process", lambda: record.processes if (record := self.record(server)) else ())
        return psutil.Process(started[0].pid)

    def freeze(self, server: str) -> psutil.Process:
        """Hold a server that is starting, so that its start lasts as long as the test wants."""
        process = self.process(server)
        process.send_signal(signal.SIGSTOP)
        record = self.record(server)
        assert record, f"{server} has no record"
        assert not record.ready, f"{server} was up before it could be held"
        return process

    def left(self) -> list[str]:
        """What still runs from this home: its servers, and what they or their makers forked."""
        marks = str(self.home), self.home.as_posix().strip("/").replace("/", "-")
        return [text for text in map(_text, psutil.process_iter()) if any(mark in text for mark in marks)]


@contextmanager
def new_lab(folder: Path | None = None, prefix: str = "lab-", **more: str) -> Iterator[Lab]:
    """A home that every user can reach, gone at the end. Fails when a process is left that no record tells of."""
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    home.chmod(0o755)
    lab = Lab(home, _environment(home, more))
    try:
        yield lab
        _kill_recorded(lab)  # what a test left on purpose need not be stopped in order
        lab.stack().down(clean=True)
        assert lab.left() == []
    finally:
        _kill(lab)
        shutil.rmtree(home, ignore_errors=True)


def one_sentence(done: Done) -> str:
    """The sentence that a failed command ended with, which is all that it says on stderr."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ").strip()


def _environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    roles = [(server.name, role) for server in SERVERS.values() for role in server.ports]
    free = native.free_ports({_port(*role): 0 for role in roles})
    others = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    # Empty, not absent: a developer's own `.env` would fill what is absent.
    empty = {f"LAB_{name.upper().replace('-', '_')}": "" for name in SERVERS}
    ports = {name: str(port) for name, port in free.items()}
    own = {f"LAB_{name}": value for name, value in more.items()}
    return {**others, **empty, **ports, "LAB_HOME": str(home), "LAB_PROVIDER": "native", **own}


def _port(server: str, role: str) -> str:
    name = server if role == "client" else f"{server}_{role}"
    return f"LAB_{name}_PORT".upper().replace("-", "_")


def _text(process: psutil.Process) -> str:
    """Command line and folder: Postgres' children rename themselves, but stay in the data directory."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())} in {process.cwd()}"
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""


def gone(process: psutil.Process) -> bool:
    """Whether it has ended, be it not yet collected by its parent."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _kill_recorded(lab: Lab) -> None:
    records = [record for server in SERVERS if (record := lab.record(server))]
    for process in (process for record in records for process in record.processes):
        process.identity.signal_family("SIGKILL")


def _kill(lab: Lab) -> None:
    for text in lab.left():
        os.kill(int(text.split()[0]), signal.SIGKILL)
