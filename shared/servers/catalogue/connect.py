"""Kafka Connect (distributed, one worker) with the Debezium Postgres connector."""

from collections.abc import Mapping

from shared.servers.artifacts import read_lock, unpack
from shared.servers.catalogue.kafka import FOLDER as KAFKA_FOLDER
from shared.servers.catalogue.kafka import kafka_jars
from shared.servers.jvm import Jvm
from shared.servers.server import Command, Endpoint, Place, Server
from shared.servers.web import ask
from shared.settings import ROOT

FOLDER = ROOT / "docker" / "connect"
CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"


class Connect(Server):
    """One worker. Its state (configuration, offsets, status) is in Kafka topics."""

    name = "connect"
    title = "Kafka Connect with Debezium"
    version = "4.3.1 + Debezium 3.6.3"
    ports = {"client": 18083}
    needs = ("kafka",)
    lock = "connect"

    def url(self, ports: Mapping[str, int]) -> str:
        return f"http://127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        plugins = unpack(read_lock("connect")[0], place.cache)
        kafka = place.needs["kafka"]
        own = {
            "bootstrap.servers": kafka.url,
            "listeners": self.url(place.ports),
            "rest.advertised.host.name": "127.0.0.1",
            "rest.advertised.port": str(place.ports["client"]),
            "plugin.path": str(plugins),
            **_credentials(kafka.options),
            **place.settings,
        }
        properties = place.folder / "connect.properties"
        properties.parent.mkdir(parents=True, exist_ok=True)
        shared = (FOLDER / "connect.properties").read_text()
        properties.write_text(shared + "".join(f"{name}={value}\n" for name, value in own.items()))
        full = place.settings.get("lab.jit") == "full"
        jvm = Jvm("connect", place.cache, kafka_jars(place.cache), "1g" if full else "256m", full)
        return [
            jvm.command(
                ("org.apache.kafka.connect.cli.ConnectDistributed", str(properties)),
                place.folder / "connect.log",
                flags=(f"-Dlog4j2.configurationFile={(KAFKA_FOLDER / 'log4j2.yaml').as_uri()}", *_names(place)),
            )
        ]

    def probe(self, endpoint: Endpoint) -> str:
        health = ask(f"{endpoint.url}/health", timeout=2)
        if health["status"] != "healthy":
            raise RuntimeError(f"Connect says {health['status']}")
        plugins = ask(f"{endpoint.url}/connector-plugins")
        debezium = next((plugin["version"] for plugin in plugins if plugin["class"] == CONNECTOR), None)
        if debezium is None:
            raise RuntimeError("Connect runs without the Debezium Postgres connector")
        kafka = ask(endpoint.url, timeout=2)["version"]
        return f"{kafka} + Debezium {debezium}"


def _names(place: Place) -> tuple[str, ...]:
    """Where Java looks names up, if not where the machine does."""
    hosts = place.settings.get("lab.hosts")
    return (f"-Djdk.net.hosts.file={hosts}",) if hosts else ()


def _credentials(options: Mapping[str, str]) -> dict[str, str]:
    """A secured Kafka's settings, for the worker itself and for its connectors' producers."""
    java = {name: value for name, value in options.items() if name in {"security.protocol", "sasl.mechanism"}}
    if user := options.get("sasl.username"):
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        password = options.get("sasl.password", "")
        java["sasl.jaas.config"] = f'{module} required username="{user}" password="{password}";'
    return java | {f"producer.{name}": value for name, value in java.items()}
