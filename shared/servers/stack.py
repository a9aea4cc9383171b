"""The servers that `lab up` keeps: who has which endpoint, start order, status.

An endpoint comes from the first of: the user's own (LAB_KAFKA=...), one that runs already, one started now.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import ConfigurationError, LabError, NotControllable, ServerError
from shared.servers import borrowers, compose, instance, native, status
from shared.servers.artifacts import Pin, fetch, read_lock
from shared.servers.catalogue import SERVERS, find
from shared.servers.handle import Handle, locks, remove, sweep
from shared.servers.instance import InstanceRecord
from shared.servers.server import Endpoint, Place, Server
from shared.servers.status import Status
from shared.settings import Provider, Settings
from shared.signals import undisturbed

Tell = Callable[[str], None]
BUSY = 180.0  # seconds to wait for another `lab` command that starts or stops servers


class Stack:
    """The servers of one LAB_HOME."""

    def __init__(self, settings: Settings | None = None, tell: Tell = lambda _: None) -> None:
        self.settings = settings or Settings.load()
        self.tell = tell

    def up(self, names: Iterable[str]) -> dict[str, Endpoint]:
        """Have these servers, and what they need, running until `down`. Those started here stop again if one fails."""
        wanted = self._with_needs(names)
        self._ask_yours(wanted)
        with self._lock():
            self._have(wanted, lent=False)
            for server in wanted:  # one that a run has started is the user's from now on
                record = instance.read(self.folder(server.name))
                if record and record.lent:
                    record.model_copy(update={"lent": False}).write(self.folder(server.name))
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
        """The servers for the time of a run: those that were started for runs stop with the last that needs them."""
        wanted = self._with_needs(names)
        self._ask_yours(wanted)
        mine = borrowers.place(self.settings.home)
        try:
            with self._lock():
                borrowers.write(mine, [server.name for server in wanted])
                self._have(wanted, lent=True)
            yield {server.name: self.endpoint(server.name) for server in wanted}
        finally:
            with undisturbed():
                if mine.exists():
                    self._give_back(mine)

    def control(self, name: str) -> Handle:
        """Control over a running server. Raises NotControllable for the user's own."""
        if self.settings.endpoint(name):
            raise NotControllable(name, "it is your own; the labs never kill or pause it.")
        record = instance.read(self.folder(name))
        if record is None:
            raise ServerError(name, f"it does not run. Start it with: lab up {name}")
        return Handle(find(name), self._place(find(name)), record)

    def down(self, names: Iterable[str] | None = None, *, clean: bool = False) -> list[str]:
        """Stop what `up` or a run started (all, or these), dependants first; returns those that ran and have ended.

        Who still needs one is told of, and loses it. `clean` removes data too. Raises LabError when one runs on.
        """
        chosen = list(SERVERS) if names is None else [find(name).name for name in names]
        with self._lock():
            sweep(self.settings)
            records = self._records(chosen)
            for borrower in borrowers.living(self.settings.home):
                if taken := [name for name in records if name in borrower.servers]:
                    self.tell(f"{', '.join(taken)}: needed by {borrower}, stopped all the same")
            stopped, problems = self._stop(records)
            if clean:
                for name in (name for name in chosen if name not in problems):
                    remove(self.folder(name), self.settings.cache)
                    if name in records and records[name].provider == "compose":
                        compose.wipe(name)
        if problems:
            raise LabError(" ".join([*problems.values(), f"Stopped: {', '.join(stopped) or 'nothing'}."]))
        return stopped

    def status(self) -> list[Status]:
        return [self._status(server) for server in SERVERS.values()]

    def folder(self, name: str) -> Path:
        return self.settings.home / "servers" / name

    def pins(self, servers: Iterable[Server]) -> list[Pin]:
        """The jars that these servers need, each once."""
        names = dict.fromkeys(lock for server in servers for lock in locks(server))
        return [pin for name in names for pin in read_lock(name)]

    def _records(self, names: Iterable[str]) -> dict[str, InstanceRecord]:
        return {name: record for name in names if (record := instance.read(self.folder(name)))}

    def _ask_yours(self, wanted: Iterable[Server]) -> None:
        """Raise ServerError when one of the user's own does not answer: before anything is started or changed."""
        for server in wanted:
            if self.settings.endpoint(server.name):
                status.require(server, self.endpoint(server.name))

    def _have(self, wanted: Iterable[Server], *, lent: bool) -> None:
        sweep(self.settings)
        if missing := [server for server in wanted if self.find(server.name) is None]:
            self._start(missing, lent=lent)

    def _give_back(self, mine: Path) -> None:
        with self._lock():
            mine.unlink(missing_ok=True)
            needed = {name for borrower in borrowers.living(self.settings.home) for name in borrower.servers}
            lent = {name: record for name, record in self._records(SERVERS).items() if record.lent}
            _, problems = self._stop({name: record for name, record in lent.items() if name not in needed})
        if problems:
            raise LabError(" ".join(problems.values()))

    def _stop(self, records: Mapping[str, InstanceRecord]) -> tuple[list[str], dict[str, str]]:
        """Stop these servers; the names of those that ran and have ended, and what is wrong with those that run on."""
        ran = {name for name, record in records.items() if status.running(record)}
        problems: dict[str, str] = {}

        def end(name: str) -> None:
            try:
                self._end(records[name])
            except ServerError as error:
                problems[name] = str(error)

        for group in _stop_order(records):
            with ThreadPoolExecutor() as pool:
                list(pool.map(end, group))
        for name in records.keys() - ran:
            self.tell(f"{name} had ended before")
        return [name for name in records if name in ran and name not in problems], problems

    def _start(self, servers: list[Server], *, lent: bool) -> None:
        cancel = threading.Event()
        fetch(self.pins(s for s in servers if self._provider(s) is Provider.NATIVE), self.settings)
        self.tell(f"starting {', '.join(server.name for server in servers)}")
        # All at once: Connect loads its classes while Kafka starts, and then waits for it by itself.
        with ThreadPoolExecutor(len(servers)) as pool:
            jobs: dict[Future[None], str] = {}
            try:  # already here: a Ctrl-C while the first of them starts would wait for it in vain
                for server in servers:
                    jobs[pool.submit(self._start_one, server, cancel, lent)] = server.name
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

    def _start_one(self, server: Server, cancel: threading.Event, lent: bool) -> None:
        folder = self.folder(server.name)
        if left := instance.read(folder):  # died, or its starter did: nothing of it may hold the ports
            self._end(left)
        if self._provider(server) is Provider.COMPOSE:
            started = compose.start(server, self.settings, cancel)
            record = started.model_copy(update={"lent": lent}).write(folder)
        else:
            record = native.start(server, self._place(server), cancel, lent=lent)
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
        elif not native.end(record, self.folder(record.server)) and record.ready:
            self.tell(f"{record.server}: its start-up cache is yet to be made, after its next stop in order")

    def _status(self, server: Server) -> Status:
        if given := self.settings.endpoint(server.name):
            return status.of_yours(server, Endpoint(server.name, given, "yours", self.settings.options(server.name)))
        record = instance.read(self.folder(server.name))
        return status.of(record) if record else Status(server.name, "stopped")

    def _with_needs(self, names: Iterable[str]) -> list[Server]:
        """The servers in the order of the catalogue, with all that they need. The user's own have what they need."""
        chosen: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in chosen:
                chosen.add(name)
                todo.extend(() if self.settings.endpoint(name) else find(name).needs)
        return [server for server in SERVERS.values() if server.name in chosen]

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


def _stop_order(names: Iterable[str]) -> list[list[str]]:
    """Two groups: those that need others first, since Connect leaves its group in order only while Kafka runs."""
    chosen = list(names)
    return [
        group for group in ([n for n in chosen if find(n).needs], [n for n in chosen if not find(n).needs]) if group
    ]
