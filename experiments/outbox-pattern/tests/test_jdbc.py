"""What a Postgres address says reaches Debezium, or is refused with a sentence."""

import os

import pytest
from outbox.relay import jdbc

from shared.errors import ConfigurationError
from shared.servers.server import Endpoint


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


def settings(url: str, inside: str = "") -> dict[str, str]:
    return jdbc.settings(Endpoint("postgres", url, "yours", inside=inside))


KEYWORDS = "user=me password=p@ss dbname=shop sslmode=verify-full sslrootcert=/ca.pem sslkey=/k sslcert=/c"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss@db.example.com:5433/shop?sslmode=verify-full&sslrootcert=/ca.pem&sslkey=/k&sslcert=/c",
        f"host=db.example.com port=5433 {KEYWORDS} application_name=lab keepalives=1",
    ],
)
def test_an_address_is_passed_on_whole(url: str) -> None:
    assert settings(url) == {
        "database.hostname": "db.example.com",
        "database.port": "5433",
        "database.user": "me",
        "database.password": "p@ss",
        "database.dbname": "shop",
        "database.sslmode": "verify-full",
        "database.sslrootcert": "/ca.pem",
        "database.sslcert": "/c",
        "database.sslkey": "/k",
    }


@pytest.mark.parametrize(("theirs", "ours"), jdbc.TARGETS.items())
def test_the_kind_of_server_that_is_asked_for_is_passed_on(theirs: str, ours: str) -> None:
    found = settings(f"host=db target_session_attrs={theirs} options='endpoint=ep-1 -c statement_timeout=5s'")
    assert found["driver.targetServerType"] == ours
    assert found["driver.options"] == "endpoint=ep-1 -c statement_timeout=5s"


def test_an_encryption_that_is_required_is_checked_where_a_root_certificate_is_named() -> None:
    """As libpq does; the driver would trust whoever answers."""
    assert settings("host=db sslmode=require sslrootcert=/ca.pem")["database.sslmode"] == "verify-ca"
    assert settings("host=db sslmode=require")["database.sslmode"] == "require"


def test_the_certificates_of_the_machine_are_those_of_its_java() -> None:
    found = settings("host=db sslrootcert=system")
    assert (found["database.sslmode"], found.get("database.sslrootcert")) == ("verify-full", None)
    assert found["database.sslfactory"] == "org.postgresql.ssl.DefaultJavaSSLFactory"


def test_the_environment_fills_in_what_the_address_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOST": "db.example.com", "PGPASSWORD": "secret", "PGUSER": "theirs"}.items():
        monkeypatch.setenv(name, value)
    found = settings("user=me dbname=shop")
    shown = [found[f"database.{name}"] for name in ("hostname", "user", "password")]
    assert shown == ["db.example.com", "me", "secret"]


@pytest.mark.parametrize(
    ("inside", "place"), [("db:5433", ("db", "5433")), ("db", ("db", "6432")), ("10.0.0.7:1", ("10.0.0.7", "1"))]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "/var/run/postgresql", "one,two"])
def test_the_address_inside_wins_over_any_other(host: str, inside: str, place: tuple[str, str]) -> None:
    found = settings(f"host={host} port=6432", inside)
    assert (found["database.hostname"], found["database.port"]) == place


@pytest.mark.parametrize(
    ("url", "inside", "reason"),
    [
        ("host=db", "[::1]:5432", "IPv6 address, which needs a name"),
        ("host=db", "2001:db8::7", "IPv6 address"),
        ("postgresql://[::1]:5432/shop", "", "IPv6 address"),
        ("hostaddr=2001:db8::7 host=db", "", "IPv6 address"),
        ("postgresql://one:5432,two:5433/shop", "", "several hosts"),
        ("host=/var/run/postgresql", "", "a socket"),
        ("dbname=shop", "", "a socket"),
        ("host=bücher.example", "", "unusual host name"),
        ("host=db", "db:port", "unusual host name"),
    ],
)
def test_a_place_that_debezium_does_not_take_is_refused_with_the_remedy(url: str, inside: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{reason}.*LAB_POSTGRES_INSIDE=host:port"):
        settings(url, inside)


@pytest.mark.parametrize("part", ["service=mine", "passfile=/p", "sslcrl=/crl", "require_auth=scram-sha-256"])
def test_what_debezium_has_no_setting_for_is_refused_and_named(part: str) -> None:
    with pytest.raises(ConfigurationError, match=part.partition("=")[0]):
        settings(f"host=db {part}")
