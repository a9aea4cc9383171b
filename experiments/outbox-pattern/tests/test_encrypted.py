"""A Postgres that takes nobody in the clear: what its address says is what Connect does, also at an IPv6 address."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from platform import machine
from socket import AF_INET6, create_server
from uuid import uuid4

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from outbox.relay import jdbc
from outbox.relay.debezium import Connector
from outbox.stage.processes import Shop, write_backlog
from outbox.table import create
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shared import kafka as kafka_helpers
from shared.errors import ConfigurationError, DeadlineExceeded
from shared.history import Recorder
from shared.postgres import connect as session
from shared.postgres import create_schema
from shared.servers.artifacts import read_lock, unpack
from shared.servers.catalogue.postgres import Postgres, data_folder
from shared.servers.handle import own_instance
from shared.servers.process import unprivileged_user
from shared.servers.server import Command, Endpoint, Place
from shared.servers.stack import Stack
from shared.settings import Settings
from shared.tap import Tap

NAMES = "127.0.0.1", "::1", "six.test"  # those in the server's certificate
HOSTS = "::1 six.test\n127.0.0.1 other.test\n"
RULES = "hostssl all,replication certified all cert\nhostssl all,replication all all trust\n"
CHECKED = "sslmode=verify-full sslrootcert={papers}/root.pem"
WAYS = {
    "checked": f"{CHECKED} target_session_attrs=read-write",
    "checked by both": f"{CHECKED} user=certified sslcert={{papers}}/client.pem sslkey={{papers}}/client.pk8",
    "require": "sslmode=require sslrootcert={papers}/root.pem sslnegotiation=direct",
}
# What Connect is told, at which host, and what it says.
REFUSED = {
    "another's root": (
        "sslmode=verify-full sslrootcert={papers}/another.pem",
        "127.0.0.1",
        "PKIX path building failed",
    ),
    "required": ("sslmode=require sslrootcert={papers}/another.pem", "127.0.0.1", "PKIX path building failed"),
    "the system's": ("sslmode=verify-full sslrootcert=system", "127.0.0.1", "PKIX path building failed"),
    "no root": (
        "sslmode=verify-full sslrootcert={papers}/none.pem",
        "127.0.0.1",
        "Could not open SSL root certificate",
    ),
    "another name": (CHECKED, "other.test", "hostname other.test could not be verified"),
    "in the clear": ("sslmode=disable", "127.0.0.1", "no encryption$"),
    "not certified": (f"{CHECKED} user=certified", "127.0.0.1", "requires a valid client certificate"),
    "a standby": (f"{CHECKED} target_session_attrs=standby", "127.0.0.1", "specified targetServerType: secondary"),
}
Yours = Callable[..., Endpoint]


class Encrypted(Postgres):
    """With a certificate of its own, and clients that have to have one: those that are `certified`."""

    lock = "postgres-tls"

    def __init__(self, papers: Path) -> None:
        self.papers = papers

    def binaries(self, cache: Path) -> Path:
        return unpack(read_lock(self.lock)[0], cache) / "bin"

    def commands(self, place: Place) -> list[Command]:
        found = super().commands(place)
        (data_folder(place) / "pg_hba.conf").write_text(RULES)
        for name in ("server.crt", "server.key", "root.pem"):
            copy = shutil.copy(self.papers / name, data_folder(place))
            Path(copy).chmod(0o600)
            if user := unprivileged_user():
                shutil.chown(copy, user["user"], user["group"])
        return found


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root and another one's, the server's certificate and key, the client's, and a hosts file for Java."""
    folder, root = tmp_path_factory.mktemp("papers"), trustme.CA()
    root.cert_pem.write_to_path(folder / "root.pem")
    trustme.CA().cert_pem.write_to_path(folder / "another.pem")
    server, client = root.issue_cert(*NAMES), root.issue_cert("client.test", common_name="certified")
    server.cert_chain_pems[0].write_to_path(folder / "server.crt")
    server.private_key_pem.write_to_path(folder / "server.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    key = load_pem_private_key(client.private_key_pem.bytes(), None)
    (folder / "client.pk8").touch(0o600)
    (folder / "client.pk8").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + "\n" + HOSTS)
    return folder


@pytest.fixture(scope="module")
def encrypted(settings: Settings, papers: Path) -> Iterator[Endpoint]:
    if (sys.platform, machine()) != ("linux", "x86_64"):
        pytest.skip("no Postgres that can encrypt is pinned for this platform")
    own = {"ssl": "on", "ssl_ca_file": "root.pem", "listen_addresses": "127.0.0.1,::1"}
    with own_instance(Encrypted(papers), settings, None, own) as handle:
        with session(handle.endpoint.url) as connection:
            connection.execute("create role certified login superuser")
        yield handle.endpoint


@pytest.fixture(scope="module")
def connect(settings: Settings, kafka: Endpoint, papers: Path) -> Iterator[Endpoint]:
    """A Connect that looks names up in our file; apart from any other on this Kafka."""
    name = f"lab_test_{uuid4().hex[:10]}"
    topics = {f"{kind}.storage.topic": f"{name}_{kind}" for kind in ("config", "offset", "status")}
    own = {"group.id": name, "lab.hosts": str(papers / "hosts"), **topics}
    with own_instance("connect", settings, {"kafka": kafka}, own) as handle:
        yield handle.endpoint
    kafka_helpers.delete_topics(kafka, name)


@pytest.fixture
def shop(encrypted: Endpoint, kafka: Endpoint, topic: Callable[..., str], unique: str, tmp_path: Path) -> Shop:
    create(conninfo := create_schema(encrypted, unique))
    return Shop(conninfo, kafka, topic("orders"), tmp_path / "history.jsonl", seed=7, count=40)


@pytest.fixture
def yours(encrypted: Endpoint, papers: Path) -> Yours:
    """A function from what stands in LAB_POSTGRES, and at which host it is for Connect, to the endpoint."""
    port = conninfo_to_dict(encrypted.url)["port"]

    def endpoint(address: str, inside: str = "127.0.0.1") -> Endpoint:
        given = make_conninfo(encrypted.url, **conninfo_to_dict(address.format(papers=papers)))
        chosen = {"LAB_POSTGRES": given, "LAB_POSTGRES_INSIDE": f"{inside}:{port}"}
        return Stack(Settings.load(chosen)).endpoint("postgres")

    return endpoint


@pytest.fixture
def ipv6() -> None:
    with suppress(OSError), create_server(("::1", 0), family=AF_INET6):
        return
    pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize("way", WAYS)
def test_events_come_from_a_postgres_that_takes_nobody_in_the_clear(
    shop: Shop, yours: Yours, connect: Endpoint, unique: str, recorder: Recorder, way: str
) -> None:
    connector = Connector(connect, yours(WAYS[way]), unique, unique)
    with connector.running(), Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        assert reader(connector)[0] == "TLSv1.3"
        write_backlog(shop)
        assert tap.wait_for(shop.count)


def test_events_come_from_an_ipv6_address_that_has_a_name(
    shop: Shop, yours: Yours, connect: Endpoint, unique: str, recorder: Recorder, ipv6: None
) -> None:
    connector = Connector(connect, yours(f"{CHECKED} host=::1", "six.test"), unique, unique)
    with connector.running(), Tap("consumer", shop.broker, [shop.topic], recorder) as tap:
        assert reader(connector) == ("TLSv1.3", ip_address("::1"))
        write_backlog(shop)
        assert tap.wait_for(shop.count)


@pytest.mark.parametrize("case", REFUSED)
def test_what_connect_cannot_reach_as_it_is_told_to_it_refuses_and_says_why(
    shop: Shop, yours: Yours, connect: Endpoint, unique: str, case: str
) -> None:
    """Our own sessions have the right address: they would fail before Connect is asked."""
    address, inside, reason = REFUSED[case]
    told = jdbc.settings(yours(address, inside))
    connector = Connector(connect, yours(CHECKED), unique, unique, settings=told)
    with pytest.raises(ConfigurationError, match=f"Connect refuses connector {unique}: .*{reason}"):
        connector.configure()
    assert connector.status() == {}


def test_one_that_does_not_trust_its_postgres_any_more_says_why_it_does_not_go_on(
    shop: Shop, yours: Yours, connect: Endpoint, unique: str, papers: Path, tmp_path: Path
) -> None:
    theirs = str(shutil.copy(papers / "root.pem", tmp_path))
    told = {"database.sslrootcert": theirs, "retriable.restart.connector.wait.ms": "100"}
    connector = Connector(connect, yours(CHECKED), unique, unique, settings=told)
    with connector.running():
        connector.stop()
        shutil.copy(papers / "another.pem", theirs)
        with pytest.raises(DeadlineExceeded, match=r"to be read; .*RUNNING.*PKIX path building failed"):
            connector.resume(seconds=1)


def reader(connector: Connector) -> tuple[str, object]:
    """How and from where the connector's slot is read: the version of TLS, and the address."""
    query = (
        "select ssl.version, client_addr from pg_replication_slots slot join pg_stat_ssl ssl on ssl.pid = active_pid"
        " join pg_stat_activity activity on activity.pid = active_pid where slot_name = %s"
    )
    with session(connector.postgres.url) as connection:
        [(version, address)] = connection.execute(query, [connector.name]).fetchall()
    return version, address
