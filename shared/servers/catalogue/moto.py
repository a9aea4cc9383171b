"""moto, which stands in for AWS: Step Functions, SQS and others, in memory."""

import sys
from collections.abc import Mapping
from importlib.metadata import version

from shared.servers.server import Command, Endpoint, Place, Server
from shared.servers.web import ask


class Moto(Server):
    """One server. It keeps nothing: killed, it has lost everything, which AWS would not have."""

    name = "moto"
    title = "moto (Step Functions, SQS)"
    version = version("moto")
    ports = {"client": 15000}

    def url(self, ports: Mapping[str, int]) -> str:
        return f"http://127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        listen = "-H", "127.0.0.1", "-p", str(place.ports["client"])
        return [Command((sys.executable, "-m", "moto.server", *listen), place.folder / "moto.log")]

    def probe(self, endpoint: Endpoint) -> str:
        ask(f"{endpoint.url}/moto-api/")
        return self.version if endpoint.ours else ""
