"""The compose provider: the same servers from `docker-compose.yml`, where a Docker engine runs."""

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from shared.errors import NotAvailable, NotReady, PortTaken, ServerError, StartFailed
from shared.servers.instance import InstanceRecord
from shared.servers.native import PROBE_PAUSE, last_words
from shared.servers.server import Server
from shared.settings import ROOT, Settings

PROJECT = "eda-labs"
FILE = ROOT / "docker-compose.yml"
START = 300.0  # seconds for start and health check; a pull may take as long as it needs

# Where the other containers reach a service, on compose's network. A server that is not here is native only.
INSIDE = {
    "postgres": "postgres:5432",
    "kafka": "kafka:9094",
    "connect": "connect:8083",
    "temporal": "temporal:7233",
    "registry": "registry:8080",
    "eventstoredb": "eventstoredb:2113",
    "axon": "axon:8124",
    "camunda": "camunda:8080",
    "moto": "moto:5000",
}

# Two that create at once both make the network, or both make Kafka, which each of them needs.
_creating = threading.Lock()


@functools.cache
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
    """Start one service, and what it needs, and wait until it is healthy and answers. On failure it is removed.

    Raises NotAvailable, PortTaken, StartFailed or NotReady.
    """
    if reason := _unable(server, settings) or engine():
        raise NotAvailable(server.name, reason)
    cancel = cancel or threading.Event()
    began = time.monotonic()
    ports = {role: settings.port(server.name, role, default) for role, default in server.ports.items()}
    url, inside = server.url(ports), INSIDE[server.name]
    record = InstanceRecord(server=server.name, provider="compose", url=url, inside=inside, ports=ports)
    try:
        _create(server, settings)
        _up(server, settings, cancel)
        version = _await_answer(server, record, cancel)
    except BaseException:
        end(server.name, patience=1)
        raise
    seconds = round(time.monotonic() - began, 2)
    return record.model_copy(update={"ready": True, "version": version, "seconds": seconds})


def end(name: str, patience: int = 10) -> None:
    """Stop the service and remove its container and its anonymous volumes; named ones keep the data.

    What has not stopped in order after `patience` seconds is killed.
    """
    if name in _services("paused"):
        _compose("unpause", name)  # a paused server would not see the signal
    _compose("stop", "--timeout", str(patience), name)
    _compose("rm", "--force", "--volumes", name)
    with _creating:
        if not _compose("ps", "--all", "--quiet").stdout.strip():
            _compose("down")  # the network, once nothing is on it


def wipe(name: str) -> None:
    """Remove the data of a service that has ended. (`down --volumes NAME` would remove the data of all.)"""
    _run(("docker", "volume", "rm", "--force", f"{PROJECT}_{name}"))


def running(name: str) -> bool:
    """Whether the service's container runs, be it paused."""
    return name in _services("running") | _services("paused")


def act(name: str, verb: str) -> None:
    """Kill, pause, unpause, stop or start the service's container; started, it is healthy again on return.

    Raises StartFailed with compose's own words.
    """
    # `up`, since not every compose has `start --wait`.
    start = "up", "--detach", "--wait", "--no-deps", "--no-recreate"
    done = _compose(*(start if verb == "start" else (verb,)), name)
    if done.returncode:
        raise StartFailed(name, f"docker compose {verb}: {_last_line(done.stderr)}")


def logs(name: str, lines: int) -> str:
    return _compose("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), name).stdout


def _unable(server: Server, settings: Settings) -> str:
    """Why compose cannot have this server with these settings."""
    if server.name not in INSIDE:
        return "docker-compose.yml does not have it; use --provider native."
    yours = [need for need in server.needs if settings.endpoint(need)]
    # The file binds it to compose's own, which would be started beside the user's.
    return f"under compose it cannot use your own {yours[0]}; use --provider native." if yours else ""


def _create(server: Server, settings: Settings) -> None:
    """Make the containers of the service and of what it needs. Images that are here are not asked for again."""
    with _creating:
        words = "create", "--pull", "never", server.name
        done = _compose(*words, settings=settings)
        if "no such image" in done.stderr.lower():
            _pull(server, settings)
            done = _compose(*words, settings=settings)
        if done.returncode:
            raise StartFailed(server.name, f"docker compose says: {_last_line(done.stderr)}.")


def _pull(server: Server, settings: Settings) -> None:
    # On a terminal, compose shows its progress there itself.
    output = None if sys.stderr.isatty() else subprocess.PIPE
    argv, env = _argv("pull", "--policy", "missing", "--include-deps", server.name), _environment(settings)
    done = subprocess.run(argv, stderr=output, encoding="utf-8", errors="replace", check=False, env=env)
    if done.returncode:
        words = _last_line(done.stderr) if output else "see above"
        raise NotAvailable(server.name, f"its image is not on this machine and cannot be pulled ({words}).")


def _up(server: Server, settings: Settings, cancel: threading.Event) -> None:
    words = "up", "--detach", "--wait", "--pull", "never", server.name
    done = _compose(*words, settings=settings, cancel=cancel)
    if cancel.is_set():
        raise StartFailed(server.name, "the start was cancelled.")
    if done.returncode:
        raise _failure(server, _last_line(done.stderr), settings)


def _failure(server: Server, words: str, settings: Settings) -> ServerError:
    """What went wrong, with the container's last words. Its log outlives it."""
    taken = re.search(r"127\.0\.0\.1:(\d+).*already (in use|allocated)", words)
    if taken:
        return PortTaken(server.name, int(taken[1]), "another process")
    log = settings.home / "servers" / server.name / "compose.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(logs(server.name, 1000), encoding="utf-8")
    return StartFailed(server.name, f"docker compose says: {words}. Last words: {last_words(log)!r}.", log)


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
    words = " ".join(str(problem).split())
    raise NotReady(server.name, f"its container is healthy, but no client gets an answer ({words}).")


def _services(state: str) -> set[str]:
    return set(_compose("ps", "--services", "--status", state).stdout.split())


def _compose(
    *words: str, settings: Settings | None = None, cancel: threading.Event | None = None
) -> "subprocess.CompletedProcess[str]":
    return _run(_argv(*words), _environment(settings) if settings else None, cancel)


def _argv(*words: str) -> tuple[str, ...]:
    name = command() or ("docker", "compose")
    return (*name, "--project-name", PROJECT, "--file", str(FILE), "--profile", "all", *words)


def _environment(settings: Settings) -> dict[str, str]:
    """All ports, not only this server's: compose makes a container anew when its ports have changed."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return others | {f"LAB_{name}": value for name, value in settings.values.items()}


def _run(
    argv: tuple[str, ...], env: Mapping[str, str] | None = None, cancel: threading.Event | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, or until the cancel or the deadline."""
    deadline, late = time.monotonic() + START, ""
    pipe = subprocess.PIPE
    # In a session of its own, so that Ctrl-C at the terminal does not reach it: `end` has to get through.
    process_of = functools.partial(subprocess.Popen[str], encoding="utf-8", errors="replace", start_new_session=True)
    with process_of(argv, stdout=pipe, stderr=pipe, env=env) as process:
        while True:
            try:
                out, err = process.communicate(timeout=0.2)
                return subprocess.CompletedProcess(argv, process.returncode, out, err + late)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline or (cancel and cancel.is_set()):
                    late = f"\nit did not end within {START:.0f} s"
                    process.terminate()


def _runs(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1].strip().removeprefix("Error response from daemon: ")
