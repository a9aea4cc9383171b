"""UmaDB, an event store with dynamic consistency boundaries. Its server is in the Python client's wheel."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.errors import NotAvailable
from shared.servers.server import Command, Endpoint, Place, Server

SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with status SERVING


class UmaDB(Server):
    """One node on one file. Native only: its image is nothing but the binary, so no health check can run in it."""

    name = "umadb"
    title = "UmaDB"
    version = "0.7.8"
    ports = {"client": 15051}

    def url(self, ports: Mapping[str, int]) -> str:
        return f"http://127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        place.data.mkdir(parents=True, exist_ok=True)
        listen = "--listen", f"127.0.0.1:{place.ports['client']}"
        database = "--db-path", str(place.data / "uma.db")
        return [Command((str(binary()), *listen, *database), place.folder / "umadb.log")]

    def probe(self, endpoint: Endpoint) -> str:
        import grpc  # here, as in axon.py

        # gRPC's own health service, which UmaDB's client asks too. Not that client: it sets a signal handler when it
        # is imported, which only a main thread may, and servers are started by others.
        with grpc.insecure_channel(endpoint.url.removeprefix("http://")) as channel:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=2)
        if answer != SERVING:
            raise RuntimeError(f"UmaDB's health check says {answer!r}")
        return self.version if endpoint.ours else ""


def binary() -> Path:
    """The umadb command of the wheel. Raises NotAvailable."""
    beside = Path(sys.executable).parent / "umadb"
    found = str(beside) if beside.exists() else shutil.which("umadb")
    if not found:
        raise NotAvailable("umadb", "there is no UmaDB wheel for this platform.")
    return Path(found)
