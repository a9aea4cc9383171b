"""Axon Server. It comes as a container image only."""

from collections.abc import Mapping

from shared.errors import NotAvailable
from shared.servers.server import Command, Endpoint, Place, Server


class Axon(Server):
    """One node in development mode, under compose."""

    name = "axon"
    title = "Axon Server"
    version = "2024.2.4"
    ports = {"client": 18124, "http": 18024}

    def url(self, ports: Mapping[str, int]) -> str:
        return f"127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        raise NotAvailable(self.name, self.unavailable())

    def probe(self, endpoint: Endpoint) -> str:
        # Imported here: gRPC would take a tenth of the time that every `lab` command needs to start.
        import grpc
        from axonclient.client import AxonClient

        client = AxonClient(endpoint.url)
        try:
            grpc.channel_ready_future(client.channel).result(timeout=5)
            client.get_last_token()
        finally:
            client.close_connection()
        return self.version if endpoint.ours else ""

    def unavailable(self) -> str:
        return "its server comes as a container image only; start it with --provider compose, where Docker runs."
