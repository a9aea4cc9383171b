"""Apache Kafka 4.3 in KRaft mode: one node, or three that form a cluster."""

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from shared.servers.artifacts import read_lock
from shared.servers.jvm import Jvm
from shared.servers.server import Command, Endpoint, Place, Server
from shared.settings import ROOT

FOLDER = ROOT / "docker" / "kafka"


class Kafka(Server):
    """One broker that is its own controller."""

    name = "kafka"
    title = "Apache Kafka"
    version = "4.3.1"
    ports = {"client": 19092, "controller": 19093}
    lock = "kafka"
    nodes = 1
    heap = "256m"
    replication: Mapping[str, str] = {}

    def url(self, ports: Mapping[str, int]) -> str:
        return ",".join(f"127.0.0.1:{ports[_role('client', node)]}" for node in range(1, self.nodes + 1))

    def commands(self, place: Place) -> list[Command]:
        cluster = _cluster_id(place.folder)
        return [self._node(place, node, cluster) for node in range(1, self.nodes + 1)]

    def probe(self, endpoint: Endpoint) -> str:
        # A client that was made too early sits out its reconnect backoff: a new one for every question.
        admin = AdminClient({"bootstrap.servers": endpoint.url, "log_level": 0, **endpoint.options})
        brokers = admin.list_topics(timeout=1).brokers
        if endpoint.ours and len(brokers) < self.nodes:
            raise RuntimeError(f"{len(brokers)} of {self.nodes} brokers")
        return self.version

    def _node(self, place: Place, node: int, cluster: str) -> Command:
        data = place.data / f"node-{node}"
        _format(data, node, cluster)
        properties = place.folder / f"node-{node}.properties"
        shared = (FOLDER / "server.properties").read_text()
        own = {**self._listeners(place.ports, node), "log.dirs": str(data), **self.replication, **place.settings}
        properties.write_text(shared + "".join(f"{name}={value}\n" for name, value in own.items()))
        full = place.settings.get("lab.jit") == "full"
        jvm = Jvm("kafka", place.cache, kafka_jars(place.cache), "1g" if full else self.heap, full)
        command = jvm.command(
            ("kafka.Kafka", str(properties)),
            place.folder / f"node-{node}.log",
            flags=(f"-Dlog4j2.configurationFile={(FOLDER / 'log4j2.yaml').as_uri()}",),
        )
        return replace(command, roles=(_role("client", node), _role("controller", node)))

    def _listeners(self, ports: Mapping[str, int], node: int) -> dict[str, str]:
        client = f"PLAINTEXT://127.0.0.1:{ports[_role('client', node)]}"
        controller = f"CONTROLLER://127.0.0.1:{ports[_role('controller', node)]}"
        voters = (f"{n}@127.0.0.1:{ports[_role('controller', n)]}" for n in range(1, self.nodes + 1))
        return {
            "node.id": str(node),
            "listeners": f"{client},{controller}",
            "advertised.listeners": client,
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.voters": ",".join(voters),
        }


class KafkaCluster(Kafka):
    """Three brokers, replication factor 3, two in-sync replicas needed to acknowledge."""

    name = "kafka-cluster"
    title = "Apache Kafka, three nodes"
    ports = {
        "client": 19192,
        "controller": 19193,
        "client2": 19194,
        "controller2": 19195,
        "client3": 19196,
        "controller3": 19197,
    }
    nodes = 3
    replication = {
        "default.replication.factor": "3",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
    }


def kafka_jars(cache: Path) -> tuple[Path, ...]:
    """Broker, tools and Connect share one class path."""
    return tuple(pin.path(cache) for pin in read_lock("kafka"))


def _role(role: str, node: int) -> str:
    return role if node == 1 else f"{role}{node}"


def _format(data: Path, node: int, cluster: str) -> None:
    """What `kafka-storage format` writes, without the second that its JVM takes."""
    meta = data / "meta.properties"
    if not meta.exists():
        data.mkdir(parents=True, exist_ok=True)
        lines = "version=1", f"cluster.id={cluster}", f"node.id={node}", f"directory.id={_short_id()}"
        meta.write_text("\n".join(lines) + "\n")


def _cluster_id(folder: Path) -> str:
    path = folder / "cluster.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_short_id()))
    return str(json.loads(path.read_text()))


def _short_id() -> str:
    """Kafka's Uuid in text: 16 bytes in URL-safe base64. A leading dash is not allowed, so draw again."""
    text = "-"
    while text.startswith("-"):
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text
