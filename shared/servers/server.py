"""What a server is to the house, whoever starts it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Endpoint:
    """How a client reaches a server."""

    server: str
    url: str  # Postgres: any conninfo of libpq's; Kafka: bootstrap host:port; others: an http URL or host:port
    provider: str  # native, compose or yours
    options: Mapping[str, str] = field(default_factory=dict)  # client settings, such as sasl.username
    inside: str = ""  # host:port as the other servers reach it, where that differs (compose's network)

    @property
    def ours(self) -> bool:
        """Whether the labs started it, and so may kill, pause and restart it."""
        return self.provider != "yours"


@dataclass(frozen=True)
class Place:
    """Where one instance of a server lives: its folder (data, logs), the download cache, its ports and its needs."""

    folder: Path
    cache: Path
    ports: Mapping[str, int]
    needs: Mapping[str, Endpoint] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  # overrides, in the server's own terms

    @property
    def data(self) -> Path:
        return self.folder / "data"


@dataclass(frozen=True)
class Command:
    """One process of a server."""

    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    unprivileged: bool = False  # must not run as root
    graceful: str = "SIGTERM"  # the signal that stops it in order
    finish: tuple[str, ...] = ()  # run once after a stop in order, to make a start-up cache; see jvm.py
    finished: Path | None = None  # what `finish` makes
    roles: tuple[str, ...] = ()  # of the ports it listens on, where a server is several processes


class Server(ABC):
    """A kind of server. One subclass per file in `catalogue/`."""

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]  # what the lock files pin
    ports: ClassVar[Mapping[str, int]]  # role -> default port; the role `client` is the one that clients use
    needs: ClassVar[tuple[str, ...]] = ()
    lock: ClassVar[str | None] = None  # lock file of jars below docker/, without .lock
    deadline: ClassVar[float] = 120.0  # seconds to answer after the start
    joint: ClassVar[str] = "."  # between the words of a setting's name

    @abstractmethod
    def url(self, ports: Mapping[str, int]) -> str:
        """The client's address when the server listens on these ports of 127.0.0.1."""

    @abstractmethod
    def commands(self, place: Place) -> list[Command]:
        """Prepare the place (configuration, empty data directory) and say what to run in it."""

    @abstractmethod
    def probe(self, endpoint: Endpoint) -> str:
        """Ask the server something that only a working one answers; returns its version. Raises anything."""

    def spelled(self, keywords: Mapping[str, str]) -> dict[str, str]:
        """Settings that were given as keyword arguments, as the server spells them: lab_jit is Kafka's lab.jit."""
        return {name.replace("_", self.joint): value for name, value in keywords.items()}

    def unavailable(self) -> str:
        """Why this machine cannot have the server natively; empty when it can."""
        return ""
