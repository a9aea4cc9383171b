"""The servers that `lab up` keeps: who has which endpoint, start order, status.

An endpoint comes from the first of: the user's own (LAB_KAFKA=...), one that runs already, one started now.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import ConfigurationError, LabError, NotControllable, ServerError
from shared.servers import compose, instance, native
from shared.servers.artifacts import Pin, fetch, read_lock
from shared.servers.catalogue import SERVERS, find
from shared.servers.handle import Handle, locks, remove, sweep
from shared.servers.instance import InstanceRecord
from shared.servers.process import undisturbed
from shared.servers.server import Endpoint, Place, Server
from shared.settings import Provider, Settings

Tell = Callable[[str], None]
BUSY = 180.0  # seconds to wait for another `lab` command that starts or stops servers


@dataclass(frozen=True)
class Status:
    """One server, as `lab status` shows it."""

    server: str
    state: str  # running, yours, starting, died, stopped
    provider: str = ""
    url: str = ""
    version: str = ""
    seconds: float = 0.0
    rss_mb: float = 0.0
    detail: str = ""


class Stack:
    """The servers of one LAB_HOME."""

    def __init__(self, settings: Settings | None = None, tell: Tell = lambda _: None) -> None:
        self.settings = settings or Settings.load()
        self.tell = tell

    def up(self, names: Iterable[str]) -> dict[str, Endpoint]:
        """Have these servers, and what they need, running. Those started here are stopped again if one fails."""
        wanted = _with_needs(names)
        with self._lock():
            sweep(self.settings)
            missing = [server for server in wanted if self.find(server.name) is None]
            if missing:
                self._start(missing)
        return {server.name: self.endpoint(server.name) for server in wanted}

    def find(self, name: str) -> Endpoint | None:
        """The endpoint of the user's own or of a running server; None when there is none."""
        if given := self.settings.endpoint(name):
            return Endpoint(name, given, "yours", self.settings.options(name), self.settings.inside(name))
        record = instance.read(self.folder(name))
        if record is None or not record.ready:
            return None
        alive = compose.running(name) if record.provider == "compose" else not record.dead
        return record.endpoint() if alive else None

    def endpoint(self, name: str) -> Endpoint:
        """Like `find`, but raises ServerError with the remedy when there is none."""
        found = self.find(find(name).name)
        if found is None:
            raise ServerError(name, f"it does not run. Start it with: lab up {name}")
        return found

    @contextmanager
    def borrowed(self, names: Iterable[str]) -> Iterator[dict[str, Endpoint]]:
        """The servers for the time of a run: those that had to be started for it are stopped after it."""
        wanted = [server.name for server in _with_needs(names)]
        before = {name for name in wanted if self.find(name)}
        endpoints = self.up(wanted)
        try:
            yield endpoints
        finally:
            with undisturbed():
                self.down([name for name in wanted if name not in before])

    def control(self, name: str) -> Handle:
        """Control over a running server. Raises NotControllable for the user's own."""
        if self.settings.endpoint(name):
            raise NotControllable(name, "it is your own; the labs never kill or pause it.")
        record = instance.read(self.folder(name))
        if record is None:
            raise ServerError(name, f"it does not run. Start it with: lab up {name}")
        return Handle(find(name), self._place(find(name)), record)

    def down(self, names: Iterable[str] | None = None, *, clean: bool = False) -> list[str]:
        """Stop what `up` started (all, or these), dependants first; returns their names. `clean` removes data too."""
        chosen = list(SERVERS) if names is None else [find(name).name for name in names]
        with self._lock():
            sweep(self.settings)
            records = {name: record for name in chosen if (record := instance.read(self.folder(name)))}
            for group in _stop_order(records):
                with ThreadPoolExecutor() as pool:
                    list(pool.map(lambda name: self._end(records[name]), group))
            if clean:
                for name in chosen:
                    remove(self.folder(name), self.settings.cache)
                    if name in records and records[name].provider == "compose":
                        compose.wipe(name)
        return list(records)

    def status(self) -> list[Status]:
        return [self._status(server) for server in SERVERS.values()]

    def folder(self, name: str) -> Path:
        return self.settings.home / "servers" / name

    def pins(self, servers: Iterable[Server]) -> list[Pin]:
        """The jars that these servers need, each once."""
        names = dict.fromkeys(lock for server in servers for lock in locks(server))
        return [pin for name in names for pin in read_lock(name)]

    def _start(self, servers: list[Server]) -> None:
        cancel = threading.Event()
        fetch(self.pins(s for s in servers if self._provider(s) is Provider.NATIVE), self.settings)
        self.tell(f"starting {', '.join(server.name for server in servers)}")
        # All at once: Connect loads its classes while Kafka starts, and then waits for it by itself.
        with ThreadPoolExecutor(len(servers)) as pool:
            jobs: dict[Future[None], str] = {}
            try:  # already here: a Ctrl-C while the first of them starts would wait for it in vain
                for server in servers:
                    jobs[pool.submit(self._start_one, server, cancel)] = server.name
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            except BaseException:
                with undisturbed():
                    cancel.set()
                    pool.shutdown()
                    failed = {name for job, name in jobs.items() if job.exception()}
                    for server in servers:
                        record = instance.read(self.folder(server.name))
                        if record and server.name not in failed:
                            self._end(record)
                raise

    def _start_one(self, server: Server, cancel: threading.Event) -> None:
        folder = self.folder(server.name)
        if left := instance.read(folder):  # died, or its starter did: nothing of it may hold the ports
            self._end(left)
        if self._provider(server) is Provider.COMPOSE:
            record = compose.start(server, self.settings, cancel).write(folder)
        else:
            record = native.start(server, self._place(server), cancel)
        self.tell(f"{server.name} {record.version} answers after {record.seconds:.1f} s at {record.url}")

    def _provider(self, server: Server) -> Provider:
        """AUTO prefers native: it starts in seconds and pulls nothing (docs/adr/0001-two-server-providers.md)."""
        if self.settings.provider is not Provider.AUTO:
            return self.settings.provider
        return Provider.COMPOSE if server.unavailable() and not compose.engine() else Provider.NATIVE

    def _place(self, server: Server) -> Place:
        ports = {role: self.settings.port(server.name, role, default) for role, default in server.ports.items()}
        needs = {need: self._future(need) for need in server.needs}
        return Place(self.folder(server.name), self.settings.cache, ports, needs)

    def _future(self, name: str) -> Endpoint:
        """The endpoint that a server has, or will have once it is up."""
        server = find(name)
        ports = {role: self.settings.port(name, role, default) for role, default in server.ports.items()}
        return self.find(name) or Endpoint(name, server.url(ports), self._provider(server))

    def _end(self, record: InstanceRecord) -> None:
        if record.provider == "compose":
            compose.end(record.server)
            instance.forget(self.folder(record.server))
        else:
            native.end(record, self.folder(record.server))

    def _status(self, server: Server) -> Status:
        if given := self.settings.endpoint(server.name):
            return _ask(server, Endpoint(server.name, given, "yours", self.settings.options(server.name)))
        record = instance.read(self.folder(server.name))
        if record is None:
            return Status(server.name, "stopped")
        state, detail = _state(record)
        rss = sum(process.identity.rss_mb() for process in record.processes)
        return Status(
            server.name, state, record.provider, record.url, record.version, record.seconds, round(rss), detail
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.settings.home / "lock")
        try:
            self.settings.home.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0.1)
        except Timeout:
            self.tell("another lab command starts or stops servers; waiting for it")
            try:
                lock.acquire(timeout=BUSY)
            except Timeout:
                raise LabError(f"another lab command has held {lock.lock_file} for {BUSY:.0f} s; see `ps`.") from None
        except OSError as error:
            remedy = "set LAB_HOME to a folder that you may write to."
            raise ConfigurationError(f"{self.settings.home} cannot be used ({error.strerror}); {remedy}") from None
        try:
            yield
        finally:
            lock.release()


def _ask(server: Server, endpoint: Endpoint) -> Status:
    try:
        return Status(server.name, "yours", endpoint.provider, endpoint.url, server.probe(endpoint))
    except Exception as error:  # whatever a client may raise: the user wants to read it, not to lose the table
        words = " ".join(str(error).split())
        return Status(server.name, "yours", endpoint.provider, endpoint.url, detail=f"does not answer: {words}")


def _state(record: InstanceRecord) -> tuple[str, str]:
    if record.provider == "compose":
        return ("running", "") if compose.running(record.server) else ("died", "its container does not run")
    if record.dead:
        process = record.dead[0]
        return "died", f"process {process.pid} has ended; its log: {process.log}"
    return ("running", "") if record.ready else ("starting", "")


def _with_needs(names: Iterable[str]) -> list[Server]:
    """The servers in the order of the catalogue, with all that they need."""
    chosen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in chosen:
            chosen.add(name)
            todo.extend(find(name).needs)
    return [server for server in SERVERS.values() if server.name in chosen]


def _stop_order(names: Iterable[str]) -> list[list[str]]:
    """Two groups: those that need others first, since Connect leaves its group in order only while Kafka runs."""
    chosen = list(names)
    return [
        group for group in ([n for n in chosen if find(n).needs], [n for n in chosen if not find(n).needs]) if group
    ]
