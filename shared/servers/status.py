"""How a server is: what `lab status` shows of it, and whether the user's own answers."""

import re
import time
from dataclasses import dataclass

from shared.errors import ServerError
from shared.servers import compose
from shared.servers.instance import InstanceRecord
from shared.servers.server import Endpoint, Server

PATIENCE = 5.0  # seconds that the user's own server has for an answer: it may be far away, or asleep
# In a URL behind the user, or as a parameter; among keywords also in quotes (libpq, "Connection Strings").
_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^@/\s]*(?=@)|(password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)", re.IGNORECASE)
TRIES = 3  # at least, since one try may have a shorter time of its own


@dataclass(frozen=True)
class Status:
    """One server, as `lab status` shows it."""

    server: str
    state: str  # running, yours, starting, died, stopped
    provider: str = ""
    url: str = ""
    version: str = ""
    seconds: float = 0.0
    rss_mb: float = 0.0
    detail: str = ""


def of(record: InstanceRecord) -> Status:
    """A server that the labs have started."""
    state, detail = _state(record)
    rss = sum(process.identity.rss_mb() for process in record.processes)
    return Status(record.server, state, record.provider, record.url, record.version, record.seconds, round(rss), detail)


def of_yours(server: Server, endpoint: Endpoint) -> Status:
    """The user's own server."""
    shown = without_password(endpoint.url)
    try:
        return Status(server.name, "yours", endpoint.provider, shown, server.probe(endpoint))
    except Exception as error:  # whatever a client may raise: the user wants to read it, not to lose the table
        return Status(server.name, "yours", endpoint.provider, shown, detail=_silence(error))


def without_password(address: str) -> str:
    """The address as a screen may show it: a URL, or keywords and values."""
    return _PASSWORD.sub(r"\1\2***", address)


def require(server: Server, endpoint: Endpoint) -> None:
    """Return when the user's own server answers. Raises ServerError in the words of `lab status`."""
    deadline, tries = time.monotonic() + PATIENCE, 0
    while True:
        try:
            server.probe(endpoint)
            return
        except Exception as error:  # as above
            tries += 1
            if tries >= TRIES and time.monotonic() > deadline:
                variable = f"LAB_{server.name.upper().replace('-', '_')}"
                raise ServerError(server.name, f"your own, which {variable} names, {_silence(error)}") from None


def running(record: InstanceRecord) -> bool:
    """Whether anything of it runs."""
    if record.provider == "compose":
        return compose.running(record.server)
    return len(record.dead) < len(record.processes)


def _silence(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"does not answer: {words or type(error).__name__}"


def _state(record: InstanceRecord) -> tuple[str, str]:
    if record.provider == "compose":
        return ("running", "") if compose.running(record.server) else ("died", "its container does not run")
    if record.dead:
        process = record.dead[0]
        return "died", f"process {process.pid} has ended; its log: {process.log}"
    return ("running", "") if record.ready else ("starting", "")
