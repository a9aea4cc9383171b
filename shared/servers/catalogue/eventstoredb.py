"""EventStoreDB (now KurrentDB). Its server comes as a container image only."""

from collections.abc import Mapping

from shared.errors import NotAvailable
from shared.servers.server import Command, Endpoint, Place, Server
from shared.servers.web import ask


class EventStoreDB(Server):
    """One insecure node, under compose."""

    name = "eventstoredb"
    title = "EventStoreDB (KurrentDB)"
    version = "25.1.0"
    ports = {"client": 12113}

    def url(self, ports: Mapping[str, int]) -> str:
        return f"kurrentdb://127.0.0.1:{ports['client']}?tls=false"

    def commands(self, place: Place) -> list[Command]:
        raise NotAvailable(self.name, self.unavailable())

    def probe(self, endpoint: Endpoint) -> str:
        address = endpoint.url.split("://", 1)[1].split("?", 1)[0]
        info = ask(f"http://{address}/info", timeout=2)
        return str(info.get("dbVersion") or info.get("esVersion"))

    def unavailable(self) -> str:
        return "its server comes as a container image only; start it with --provider compose, where Docker runs."
