"""A Postgres address of libpq's as Debezium's settings, which are those of its JDBC driver.

What cannot be said to Debezium is refused, not left out: a connector that ignores half of its address runs, and reads
another database, or in the clear. Tried on a Postgres that encrypts: tests/test_encrypted.py. Sources:
Debezium documentation, "Debezium connector for PostgreSQL" (3.6), and that of the JDBC driver, "Connecting to the
Database" (42.7).
"""

import re

from shared.errors import ConfigurationError
from shared.postgres import fields
from shared.servers.server import Endpoint

SAID = {
    "user": "database.user",
    "password": "database.password",
    "dbname": "database.dbname",
    "sslmode": "database.sslmode",
    "sslrootcert": "database.sslrootcert",
    "sslcert": "database.sslcert",
    "sslkey": "database.sslkey",
    "sslpassword": "database.sslpassword",
    "options": "driver.options",
    "channel_binding": "driver.channelBinding",
    "connect_timeout": "driver.connectTimeout",
    "gssencmode": "driver.gssEncMode",
    "krbsrvname": "driver.kerberosServerName",
    "sslnegotiation": "driver.sslNegotiation",
}
# How the labs' own sessions are called and kept alive; where the server is, `_place` says.
OURS = {
    *("host", "hostaddr", "port", "application_name", "fallback_application_name", "client_encoding"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
}
TARGETS = {
    "any": "any",
    "read-write": "primary",
    "primary": "primary",
    "read-only": "secondary",
    "standby": "secondary",
    "prefer-standby": "preferSecondary",
}
# libpq's word for the certificates of the machine, where the driver has a class.
SYSTEM = {"database.sslfactory": "org.postgresql.ssl.DefaultJavaSSLFactory", "database.sslmode": "verify-full"}
HOST = re.compile(r"[A-Za-z0-9._-]+")  # what Debezium takes for a host
REMEDY = "name one host and port, as Connect reaches it, in LAB_POSTGRES_INSIDE=host:port."


def settings(endpoint: Endpoint) -> dict[str, str]:
    """Debezium's settings for the database at the endpoint. Raises ConfigurationError where it has none for a part."""
    given = fields(endpoint.url)
    host, port = _place(endpoint.inside, given)
    found = {"database.hostname": host, "database.port": port, "database.sslmode": "prefer", "database.password": ""}
    found["database.user"] = found["database.dbname"] = "postgres"
    if target := given.pop("target_session_attrs", ""):
        found["driver.targetServerType"] = TARGETS.get(target, target)
    if given.get("sslmode") == "require" and "sslrootcert" in given:
        given["sslmode"] = "verify-ca"  # so libpq takes it; the driver would trust any certificate
    if given.get("sslrootcert") == "system":
        del given["sslrootcert"]
        found |= SYSTEM
    if strange := sorted(given.keys() - SAID.keys() - OURS):
        raise ConfigurationError(
            f"Debezium has no setting for what your Postgres' address says of {', '.join(strange)}."
        )
    return found | {SAID[name]: value for name, value in given.items() if name in SAID}


def _place(inside: str, given: dict[str, str]) -> tuple[str, str]:
    """Host and port for Connect: on compose's network, and perhaps on yours, not those that we use."""
    host, port = given.get("hostaddr") or given.get("host", ""), given.get("port", "5432")
    if inside:
        named = re.fullmatch(r"\[?(.*?)\]?(?::(\d+))?", inside)
        host, port = (named[1], named[2] or port) if named else (inside, port)
    if not HOST.fullmatch(host):
        raise ConfigurationError(f"{_kind(host)}, and Debezium takes one host name or IPv4 address: {REMEDY}")
    return host, port


def _kind(host: str) -> str:
    """What an address that Debezium does not take is."""
    if "," in host:
        return f"your Postgres has several hosts ({host})"
    if not host or host[0] in "/@":
        return "your Postgres is reached by a socket"
    if host.count(":") > 1:
        return "your Postgres has an IPv6 address, which needs a name"
    return f"your Postgres has an unusual host name ({host})"
