"""Where things live and what the user has chosen: LAB_* variables, from the environment or the `.env` file.

| variable | meaning |
|---|---|
| LAB_HOME | data, logs and runs; default `.lab` in the checkout |
| LAB_CACHE | downloads, shared by all checkouts; default the user's cache directory |
| LAB_PROVIDER | auto, native or compose |
| LAB_POSTGRES, LAB_KAFKA, ... | your own server's address: it is used, and never started, killed or paused |
| LAB_KAFKA_OPT_SASL_USERNAME=x | a client setting for that server: `sasl.username=x` (librdkafka's names) |
| LAB_POSTGRES_INSIDE | host:port at which your Connect reaches your Postgres, where that is another address |
| LAB_POSTGRES_PORT, LAB_TEMPORAL_UI_PORT, ... | another port for the server that the labs start |
| LAB_MAVEN | base address of a mirror of the public Java repository |
| LAB_JAVA | a Java runtime (21 or newer) in place of the one that comes as a wheel |
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import platformdirs
from dotenv import load_dotenv

from shared.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]


class Provider(StrEnum):
    """Who starts servers. AUTO: native where it can, compose for the rest."""

    AUTO = "auto"
    NATIVE = "native"
    COMPOSE = "compose"


@dataclass(frozen=True)
class Settings:
    """What the user chose. `values` holds the LAB_* variables, without the prefix."""

    home: Path
    cache: Path
    provider: Provider
    values: Mapping[str, str]

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, provider: Provider | None = None) -> "Settings":
        """Read the environment, or else the process's own with `.env` below it. Raises ConfigurationError."""
        if environment is None:
            load_dotenv(ROOT / ".env")
            environment = os.environ
        given = ((key, value) for key, value in environment.items() if key.startswith("LAB_") and value)
        values = {key.removeprefix("LAB_"): value for key, value in given}
        return cls(
            home=Path(values.get("HOME", ROOT / ".lab")).expanduser().absolute(),
            cache=Path(values.get("CACHE", default_cache())).expanduser().absolute(),
            provider=provider or _provider(values.get("PROVIDER", "auto")),
            values=values,
        )

    def endpoint(self, server: str) -> str | None:
        """The address that the user gave for the server, if any."""
        return self.values.get(_variable(server))

    def inside(self, server: str) -> str:
        """host:port under which your other servers reach it, where that is not the address that you use."""
        return self.values.get(_variable(server) + "_INSIDE", "")

    def options(self, server: str) -> dict[str, str]:
        """Client settings that the user gave: LAB_KAFKA_OPT_SASL_USERNAME becomes sasl.username."""
        prefix = _variable(server) + "_OPT_"
        given = {key: value for key, value in self.values.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix).lower().replace("_", "."): value for key, value in given.items()}

    def port(self, server: str, role: str, default: int) -> int:
        """The port of a role: `client` is LAB_KAFKA_PORT, others LAB_TEMPORAL_UI_PORT. Raises ConfigurationError."""
        name = _variable(server) + ("_PORT" if role == "client" else f"_{role.upper()}_PORT")
        given = self.values.get(name, str(default))
        if not given.isdecimal() or not 0 < int(given) < 65536:
            raise ConfigurationError(f"LAB_{name}={given} is not a port number.")
        return int(given)


def default_cache() -> Path:
    """The user's cache directory; for root a system-wide one, since servers that refuse root must reach it too."""
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/Library/Caches/eda-labs" if sys.platform == "darwin" else "/var/cache/eda-labs")
    return Path(platformdirs.user_cache_dir("eda-labs"))


def _variable(server: str) -> str:
    return server.upper().replace("-", "_")


def _provider(given: str) -> Provider:
    try:
        return Provider(given)
    except ValueError:
        choices = ", ".join(Provider)
        raise ConfigurationError(f"LAB_PROVIDER={given} is none of {choices}.") from None
