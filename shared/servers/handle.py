"""A running server that may be harmed: killed, paused, started again on the same data and ports."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from shared.errors import NotControllable, ServerError
from shared.servers import compose, instance, native
from shared.servers.artifacts import fetch, read_lock
from shared.servers.catalogue import find
from shared.servers.instance import InstanceRecord
from shared.servers.process import await_end
from shared.servers.server import Endpoint, Place, Server
from shared.settings import Settings
from shared.signals import undisturbed


class Handle:
    """Control over one instance. Every method returns when its effect is there."""

    def __init__(self, server: Server, place: Place, record: InstanceRecord) -> None:
        self.server = server
        self.place = place
        self.record = record

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def endpoint(self) -> Endpoint:
        return self.record.endpoint()

    @property
    def rss_mb(self) -> float:
        """Resident memory of all its processes, in MB. Native instances only."""
        return sum(process.identity.rss_mb() for process in self.record.processes)

    def kill(self, node: int = 1) -> None:
        """kill -9 one node with everything below it."""
        family = self.record.processes[node - 1].identity.family() if self.record.processes else []
        self._signal("SIGKILL", "kill", node)
        await_end(family, 10)

    def pause(self, node: int = 1) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal("SIGSTOP", "pause", node)
        if self.record.processes:
            self.record.processes[node - 1].identity.await_stopped()

    def resume(self, node: int = 1) -> None:
        self._signal("SIGCONT", "unpause", node)

    def start(self) -> float:
        """Start again after a kill, on the same data and ports; returns the seconds until it answered."""
        if self.record.provider == "compose":
            began = time.monotonic()
            compose.act(self.name, "start")
            return time.monotonic() - began
        if len(self.record.dead) < len(self.record.processes):  # nodes of a cluster, beside those that live
            self.record = native.revive(self.server, self.place, self.record)
            return self.record.seconds
        native.await_ports(self.name, self.place.ports)
        own, lent = self.record.owner is not None, self.record.lent
        self.record = native.start(self.server, self.place, own=own, lent=lent)
        return self.record.seconds

    def stop(self) -> None:
        """Stop in order."""
        if self.record.provider == "compose":
            compose.act(self.name, "stop")
        else:
            native.end(self.record, self.place.folder)

    def restart(self) -> float:
        """Stop in order, start again; returns the seconds until it answered."""
        self.stop()
        return self.start()

    def _signal(self, name: str, verb: str, node: int) -> None:
        if self.record.provider == "compose":
            compose.act(self.name, verb)
        elif not self.record.processes:
            raise NotControllable(self.name, "it is your own; the labs never kill or pause it.")
        else:
            self.record.processes[node - 1].identity.signal_family(name)


@contextmanager
def own_instance(
    which: str | Server,
    settings: Settings,
    needs: Mapping[str, Endpoint] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Iterator[Handle]:
    """A second instance of a server, on free ports with its own data, gone at the end. Always native.

    It is one of the catalogue, by its name, or any other. `overrides` are settings in the server's own terms;
    `lab.jit=full` gives a JVM its full speed, and `lab.hosts` names a file for Connect to look up names in.
    """
    server = find(which) if isinstance(which, str) else which
    if server.lock:
        fetch([pin for lock in locks(server) for pin in read_lock(lock)], settings)
    folder = settings.home / "own" / f"{server.name}-{uuid4().hex[:8]}"
    ports = native.free_ports(server.ports)
    place = Place(folder, settings.cache, ports, dict(needs or {}), dict(overrides or {}))
    keep: Path | None = None
    try:
        handle = Handle(server, place, native.start(server, place, own=True))
        try:
            yield handle
        finally:
            with undisturbed():
                native.end(handle.record, folder)
    except ServerError as error:
        if error.log and error.log.is_relative_to(folder):
            keep = error.log  # the error names it, so it must be there to be read
        raise
    finally:
        remove(folder, settings.cache, keep)


def locks(server: Server) -> tuple[str, ...]:
    """The lock files that a server's jars are pinned in; Connect runs on Kafka's."""
    return ("kafka", "connect") if server.lock == "connect" else (server.lock,) if server.lock else ()


def sweep(settings: Settings) -> list[str]:
    """Stop and remove instances whose owner died without doing it; returns their names.

    A folder whose name begins with a dot is about to become one: see InstanceRecord.write.
    """
    swept = []
    for folder in sorted((settings.home / "own").glob("[!.]*")):
        record = instance.read(folder)
        if record is None or (record.orphaned and _ended(record, folder)):
            remove(folder, settings.cache)
            swept.append(folder.name)
    return swept


def _ended(record: InstanceRecord, folder: Path) -> bool:
    """Stop what an owner left; False when it cannot be stopped, and so keeps its folder until the next sweep."""
    try:
        native.end(record, folder, patience=2.0)
    except ServerError:
        return False
    return True


def remove(folder: Path, cache: Path, keep: Path | None = None) -> None:
    """Remove a place with its data, also where the data had to go elsewhere (see catalogue/postgres.py).

    `keep` is a log that stays until the next sweep.
    """
    text = keep.read_bytes() if keep and keep.exists() else b""
    shutil.rmtree(folder, ignore_errors=True)
    if keep and text:
        folder.mkdir(parents=True)
        keep.write_bytes(text)
    shutil.rmtree(cache / "data" / folder.as_posix().strip("/").replace("/", "-"), ignore_errors=True)
