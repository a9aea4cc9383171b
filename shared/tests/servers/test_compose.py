"""The two providers agree: docker-compose.yml says what the catalogue says, and its servers work."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from testcontainers.compose import DockerCompose

from shared.errors import NotAvailable, ServerError, StartFailed
from shared.servers import compose
from shared.servers.artifacts import read_lock
from shared.servers.catalogue import SERVERS, camunda, connect, kafka, postgres
from shared.servers.native import free_ports
from shared.servers.server import Endpoint, Server
from shared.settings import ROOT, Settings

FILE: dict[str, Any] = yaml.safe_load(compose.FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PORT = re.compile(r"127\.0\.0\.1:\$\{(LAB_\w+):-(\d+)\}:(\d+)")
LABS = {
    "outbox-pattern": {"postgres", "kafka", "connect"},
    "event-sourcing": {"postgres", "kafka", "eventstoredb", "axon"},
    "cqrs": {"postgres", "kafka"},
    "saga-pattern": {"postgres", "kafka", "temporal", "camunda", "moto"},
    "event-driven-fundamentals": {"postgres", "kafka"},
    "event-schema-evolution": {"postgres", "kafka", "registry"},
    "event-ordering": {"postgres", "kafka"},
    "event-mesh": {"kafka"},
    "all": set(SERVICES),
}
in_compose = pytest.mark.parametrize("server", [SERVERS[name] for name in SERVICES], ids=list(SERVICES))


def test_every_server_has_a_service_but_those_that_are_native_only() -> None:
    assert set(SERVICES) == set(compose.INSIDE) == set(SERVERS) - {"kafka-cluster", "umadb"}


@in_compose
def test_ports_and_their_variables_are_those_of_native_and_bound_to_loopback(server: Server) -> None:
    published = [PORT.fullmatch(line) for line in SERVICES[server.name]["ports"]]
    assert all(published), "a port that is not 127.0.0.1:${LAB_...:-default}:port"
    defaults = {match[1]: int(match[2]) for match in published if match}
    roles: dict[str, int] = {}
    for variable, default in defaults.items():
        settings = Settings.load({variable: "1"})
        roles |= {role: default for role in server.ports if settings.port(server.name, role, 2) == 1}
    assert roles == {role: port for role, port in server.ports.items() if role != "controller"}
    assert len(roles) == len(published)


@in_compose
def test_image_is_pinned_to_the_version_that_native_runs(server: Server) -> None:
    tag = SERVICES[server.name]["image"].rpartition(":")[2]
    assert tag.removesuffix(".Final").removeprefix("run-") == server.version.split()[-1]


@in_compose
def test_service_has_a_health_check_and_a_profile_of_its_own_and_stays_down_when_killed(server: Server) -> None:
    service = SERVICES[server.name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert server.name in service["profiles"]
    assert service["restart"] == "no"


@in_compose
def test_service_waits_for_the_health_of_what_the_server_needs(server: Server) -> None:
    needed = SERVICES[server.name].get("depends_on", {})
    assert needed == {name: {"condition": "service_healthy"} for name in server.needs}


@in_compose
def test_other_containers_reach_the_service_by_its_name(server: Server) -> None:
    host, _, port = compose.INSIDE[server.name].partition(":")
    # Kafka has a listener of its own for them.
    ports = {"9094"} if host == "kafka" else {line.rpartition(":")[2] for line in SERVICES[server.name]["ports"]}
    assert host == server.name
    assert port in ports


@pytest.mark.parametrize("lab", LABS)
def test_profile_of_a_lab_starts_its_servers(lab: str) -> None:
    assert {name for name, service in SERVICES.items() if lab in service["profiles"]} == LABS[lab]


@in_compose
def test_profile_of_a_server_starts_what_it_needs(server: Server) -> None:
    started = {name for name, service in SERVICES.items() if server.name in service["profiles"]}
    assert started == {server.name, *server.needs}


def test_postgres_reads_the_settings_file_that_native_reads() -> None:
    target = _mounted("postgres", str(postgres.SETTINGS.relative_to(ROOT)))
    assert ("-c", f"config_file={target}") in pairwise(SERVICES["postgres"]["command"])


def test_kafka_reads_the_settings_file_that_native_reads_and_overrides_none_of_it() -> None:
    assert _mounted("kafka", str(kafka.FOLDER.relative_to(ROOT))) == "/mnt/shared/config"
    added = {name.removeprefix("KAFKA_").lower().replace("_", ".") for name in SERVICES["kafka"]["environment"]}
    assert not added & set(_properties("kafka/server.properties"))


def test_camunda_reads_the_settings_file_that_native_reads() -> None:
    # The image's start script passes this path as spring.config.location.
    assert _mounted("camunda", str(camunda.SETTINGS.relative_to(ROOT))) == "/camunda/configuration/default.yml"


def test_kafka_advertises_the_published_port_and_the_inside_address() -> None:
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    published = SERVICES["kafka"]["ports"][0].rpartition(":")[0]
    assert advertised == [f"PLAINTEXT://{published}", f"INTERNAL://{compose.INSIDE['kafka']}"]


def test_connect_has_the_settings_that_native_reads_key_by_key() -> None:
    given = {_property(name): str(value) for name, value in SERVICES["connect"]["environment"].items()}
    provider = {"bootstrap.servers", "advertised.host.name", "heap.opts"}
    assert {name: value for name, value in given.items() if name not in provider} == _properties(
        "connect/connect.properties"
    )


def test_connect_image_has_the_connector_that_the_lock_pins() -> None:
    artifact, version = read_lock("connect")[0].coordinate.split(":")[1::3]
    assert SERVICES["connect"]["image"] == f"quay.io/debezium/connect:{version}"
    assert artifact.removeprefix("debezium-connector-postgres") == ""
    assert ".connector.postgresql." in connect.CONNECTOR


def test_only_named_volumes_are_written_to() -> None:
    lines = [line for service in SERVICES.values() for line in service["volumes"]]
    mounts = {line for line in lines if line.startswith(".")}
    assert all(line.endswith(":ro") and (ROOT / line.split(":")[0]).exists() for line in mounts)
    assert {line.split(":")[0] for line in lines if line not in mounts} == set(FILE["volumes"])


def test_compose_accepts_the_file() -> None:
    command = compose.command()
    if command is None:
        pytest.skip("there is no docker compose on this machine")
    argv = (*command, "--file", str(compose.FILE), "--profile", "all", "config", "--quiet")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_provider_refuses_the_cluster_and_a_connect_on_your_own_kafka() -> None:
    with pytest.raises(NotAvailable, match=r"kafka-cluster: .* --provider native"):
        compose.start(SERVERS["kafka-cluster"], Settings.load({}))
    with pytest.raises(NotAvailable, match="your own kafka"):
        compose.start(SERVERS["connect"], Settings.load({"LAB_KAFKA": "elsewhere:9092"}))


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, Endpoint]]:
    """The servers of the outbox lab, on free ports, in a project of their own, gone with their data at the end."""
    if reason := _unable(LABS["outbox-pattern"]):
        pytest.skip(reason)
    ports = {name: free_ports(SERVERS[name].ports) for name in LABS["outbox-pattern"]}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMPOSE_PROJECT_NAME", f"eda-labs-test-{uuid4().hex[:8]}")
        for name in ports:
            environment.setenv(f"LAB_{name.upper()}_PORT", str(ports[name]["client"]))
        with DockerCompose(str(ROOT), compose.FILE.name, profiles=["outbox-pattern"]):
            yield {name: Endpoint(name, SERVERS[name].url(ports[name]), "compose") for name in ports}


def test_every_started_server_answers_its_probe(started: dict[str, Endpoint]) -> None:
    # Of Connect, Debezium's version: its image may have the Kafka before ours.
    versions = {name: SERVERS[name].probe(endpoint).split()[-1] for name, endpoint in started.items()}
    assert {name: version.removesuffix(".Final") for name, version in versions.items()} == {
        name: SERVERS[name].version.split()[-1] for name in started
    }


def test_postgres_runs_with_the_settings_of_the_file(started: dict[str, Endpoint]) -> None:
    with psycopg.connect(started["postgres"].url) as connection:
        wanted = connection.execute(
            "select current_setting('wal_level'), current_setting('max_connections'), datcollate"
            " from pg_database where datname = current_database()"
        ).fetchone()
    assert wanted == ("logical", "200", "C")


def test_message_comes_back_from_kafka(started: dict[str, Endpoint]) -> None:
    address = started["kafka"].url
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic("round-trip", 1, 1)])["round-trip"].result(timeout=10)
    producer = Producer({"bootstrap.servers": address})
    producer.produce("round-trip", b"there and back")
    assert producer.flush(10) == 0
    assert _first(started["kafka"], "round-trip") == b"there and back"


def test_committed_row_reaches_kafka_through_connect_by_the_inside_addresses(started: dict[str, Endpoint]) -> None:
    with psycopg.connect(started["postgres"].url, autocommit=True) as connection:
        connection.execute("create table thing (id int primary key)")
        connection.execute("insert into thing values (42)")
    configuration = {
        "connector.class": connect.CONNECTOR,
        "database.hostname": compose.INSIDE["postgres"].partition(":")[0],
        "database.user": "postgres",
        "database.dbname": "postgres",
        "plugin.name": "pgoutput",
        "topic.prefix": "test",
        # The broker makes no topic unasked, so Connect asks.
        "topic.creation.default.partitions": "1",
        "topic.creation.default.replication.factor": "1",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    }
    created = httpx.put(f"{started['connect'].url}/connectors/test/config", json=configuration, timeout=20)
    assert created.status_code == 201, created.text
    assert b'"id":42' in _first(started["kafka"], "test.public.thing")


@pytest.mark.slow
@pytest.mark.fault
def test_provider_starts_kills_restarts_and_ends_a_service_on_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := _unable({"postgres"}):
        pytest.skip(reason)
    monkeypatch.setattr(compose, "PROJECT", f"eda-labs-test-{uuid4().hex[:8]}")
    server = SERVERS["postgres"]
    settings = Settings.load({"LAB_POSTGRES_PORT": str(free_ports(server.ports)["client"])})
    try:
        record = compose.start(server, settings)
        with psycopg.connect(record.url, autocommit=True) as connection:
            connection.execute("create table kept ()")
        compose.act("postgres", "pause")
        assert compose.running("postgres")
        compose.act("postgres", "unpause")
        compose.act("postgres", "kill")
        assert not compose.running("postgres")
        compose.act("postgres", "start")
        assert server.probe(record.endpoint()) == server.version
        compose.end("postgres")
        with psycopg.connect(compose.start(server, settings).url) as connection:
            connection.execute("select from kept")
    finally:
        compose.end("postgres")
        compose.wipe("postgres")
    assert not compose.running("postgres")


@pytest.mark.parametrize(
    ("before", "after", "error", "words"),
    [
        ("listen_addresses=*", "nonsense=1", StartFailed, 'exited .* parameter "nonsense"'),
        ("image: postgres:", "image: localhost:1/no-such-image:", NotAvailable, "cannot be pulled"),
    ],
    ids=["crash", "no image"],
)
def test_failed_start_says_why_in_one_sentence_and_leaves_nothing(
    before: str, after: str, error: type[ServerError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := _unable({"postgres"}):
        pytest.skip(reason)
    (tmp_path / "docker").symlink_to(ROOT / "docker")
    (tmp_path / "docker-compose.yml").write_text(compose.FILE.read_text().replace(before, after))
    monkeypatch.setattr(compose, "FILE", tmp_path / "docker-compose.yml")
    monkeypatch.setattr(compose, "PROJECT", f"eda-labs-test-{uuid4().hex[:8]}")
    server = SERVERS["postgres"]
    port = str(free_ports(server.ports)["client"])
    with pytest.raises(error, match=words) as failure:
        compose.start(server, Settings.load({"LAB_POSTGRES_PORT": port, "LAB_HOME": str(tmp_path)}))
    compose.wipe("postgres")
    assert "\n" not in str(failure.value)
    assert not compose.running("postgres")


def _unable(services: set[str]) -> str:
    """Why no containers can be started here; empty when they can."""
    if reason := compose.engine():
        return reason
    if compose.command() != ("docker", "compose"):
        return "testcontainers needs compose as a plugin of docker"
    docker = shutil.which("docker") or "docker"
    for name in services:
        image = SERVICES[name]["image"]
        if subprocess.run((docker, "image", "inspect", image), capture_output=True, check=False).returncode:
            return f"the image {image} is not on this machine; get it with: docker compose pull {name}"
    return ""


def _mounted(service: str, source: str) -> str:
    """Where in the container a read-only file or folder of the repository is."""
    mounts = [line.split(":") for line in SERVICES[service]["volumes"]]
    (target,) = [mount[1] for mount in mounts if mount == [f"./{source}", mount[1], "ro"]]
    return str(target)


def _properties(file: str) -> dict[str, str]:
    lines = (ROOT / "docker" / file).read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


# The image's start script sets CONNECT_<NAME> of these from <NAME>, and overwrites what was given.
_BARE = {
    "BOOTSTRAP_SERVERS",
    "ADVERTISED_HOST_NAME",
    "HEAP_OPTS",
    "GROUP_ID",
    "KEY_CONVERTER",
    "VALUE_CONVERTER",
    "CONFIG_STORAGE_TOPIC",
    "OFFSET_STORAGE_TOPIC",
    "STATUS_STORAGE_TOPIC",
    "OFFSET_FLUSH_INTERVAL_MS",
}


def _property(variable: str) -> str:
    """The worker's property that a variable of Debezium's image sets."""
    name = variable.removeprefix("CONNECT_")
    assert (name in _BARE) == (name == variable), f"{variable} would have no effect"
    return name.lower().replace("_", ".")


def _first(endpoint: Endpoint, topic: str) -> bytes:
    """The first message of a topic, awaited."""
    settings = {"bootstrap.servers": endpoint.url, "group.id": uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "allow.auto.create.topics": False, "topic.metadata.refresh.interval.ms": 500})
    consumer.subscribe([topic])
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and not message.error():
                return message.value() or b""
    finally:
        consumer.close()
    raise AssertionError(f"nothing arrived in {topic} within 30 s")
