"""The compose provider: the same servers from `docker-compose.yml`, where a Docker engine runs."""

import os
import shutil
import subprocess
import threading
import time

from shared.errors import NotAvailable, NotReady, StartFailed
from shared.servers.instance import InstanceRecord
from shared.servers.native import PROBE_PAUSE
from shared.servers.server import Server
from shared.settings import ROOT, Settings

PROJECT = "eda-labs"
FILE = ROOT / "docker-compose.yml"
START = 300.0  # seconds for pull, start and health check


def command() -> tuple[str, ...] | None:
    """The compose command of this machine: the plugin of `docker`, or a binary of its own; None without either."""
    if shutil.which("docker") and _runs("docker", "compose", "version"):
        return "docker", "compose"
    return ("docker-compose",) if shutil.which("docker-compose") else None


def engine() -> str:
    """Why compose cannot be used here; empty when an engine answers."""
    if command() is None:
        return "there is no docker compose on this machine."
    if not _runs("docker", "info"):
        return "no Docker engine answers (docker info fails)."
    return ""


def start(server: Server, settings: Settings, cancel: threading.Event | None = None) -> InstanceRecord:
    """Start one service and wait until it is healthy and answers. Raises NotAvailable, StartFailed or NotReady."""
    if reason := engine():
        raise NotAvailable(server.name, reason)
    began = time.monotonic()
    # An image that is here is not asked for again: works offline, and with images built on the spot.
    done = _compose("--profile", server.name, "up", "--detach", "--wait", "--pull", "missing", server.name)
    if done.returncode:
        _compose("rm", "--force", "--stop", server.name)
        raise StartFailed(server.name, f"docker compose says: {_last_line(done.stderr)}")
    ports = {role: settings.port(server.name, role, default) for role, default in server.ports.items()}
    record = InstanceRecord(
        server=server.name, provider="compose", url=server.url(ports), inside=INSIDE.get(server.name, ""), ports=ports
    )
    version = _await_answer(server, record, cancel or threading.Event())
    seconds = round(time.monotonic() - began, 2)
    return record.model_copy(update={"ready": True, "version": version, "seconds": seconds})


def end(name: str) -> None:
    """Stop the service and remove its container and its anonymous volumes; named ones keep the data."""
    _compose("rm", "--force", "--stop", "--volumes", name)


def running(name: str) -> bool:
    """Whether the service's container runs."""
    return name in _compose("ps", "--services", "--status", "running").stdout.split()


def act(name: str, verb: str) -> None:
    """Kill, pause, unpause or start the service's container. Raises StartFailed with compose's own words."""
    done = _compose("--profile", name, verb, name)
    if done.returncode:
        raise StartFailed(name, f"docker compose {verb}: {_last_line(done.stderr)}")


def logs(name: str, lines: int) -> str:
    return _compose("logs", "--no-color", "--tail", str(lines), name).stdout


# Where the other containers reach a service, on compose's network.
INSIDE = {"postgres": "postgres:5432", "kafka": "kafka:9094", "registry": "registry:8080"}


def _compose(*words: str) -> "subprocess.CompletedProcess[str]":
    argv = (*(command() or ("docker", "compose")), "--project-name", PROJECT, "--file", str(FILE), *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=START, env=os.environ)


def _await_answer(server: Server, record: InstanceRecord, cancel: threading.Event) -> str:
    """Compose waited for the container's own health check; this is the client's view, through the published port."""
    deadline = time.monotonic() + server.deadline
    problem: Exception | None = None
    while time.monotonic() < deadline and not cancel.is_set():
        try:
            return server.probe(record.endpoint())
        except Exception as error:  # as in native.py
            problem = error
            cancel.wait(PROBE_PAUSE)
    end(server.name)
    raise NotReady(server.name, f"its container is healthy, but no client gets an answer ({problem}).")


def _runs(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]
