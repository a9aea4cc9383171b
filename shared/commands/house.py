"""lab check, doctor, clean."""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer

from shared.commands.documents import documents
from shared.errors import LabError
from shared.labs import labs
from shared.output import make_console
from shared.plain import CROSS, TICK
from shared.servers import compose, native
from shared.servers.catalogue import SERVERS
from shared.servers.jvm import java_home
from shared.servers.stack import Stack
from shared.settings import ROOT, Settings

console = make_console()
PLACES = "shared", "experiments", "hatch_build.py"
DISK_GB, MEMORY_GB = 2, 4  # what all servers and a full run need


def check() -> None:
    """What CI checks without servers: ruff, mypy --strict, figures in documents, the compose file."""
    with tempfile.TemporaryDirectory() as elsewhere:  # for the caches, where the checkout cannot be written
        checks = _checks(Path(elsewhere) if _unwritable(ROOT) else ROOT)
        failed = [name for name, words in checks.items() if not _passes(name, [sys.executable, "-m", *words])]
    if command := compose.command():
        argv = [*command, "--file", str(compose.FILE), "--profile", "all", "config", "--quiet"]
        failed += [] if _passes("compose", argv) else ["compose"]
    else:
        console.print("  compose: not checked, there is no docker compose on this machine")
    if failed:
        raise LabError(f"check failed: {', '.join(failed)}")


def doctor() -> None:
    """What is missing on this machine, and the command that gets it. Exits 1 when something needed is."""
    settings = Settings.load()
    results = [_report(what, problem) for what, problem in _needed(settings)]
    console.print("\noptional")
    docker = compose.engine()
    _report("Docker, for --provider compose and EventStoreDB", docker)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    _report(
        "Chromium, for the tests of the result page", "" if browser else "none found; e.g. apt-get install chromium"
    )
    _report("npm, for the event store message-db", "" if shutil.which("npm") else "none found; it comes with Node.js")
    console.print(f"\ncache {settings.cache}; home {settings.home}")
    if not all(results):
        raise typer.Exit(1)


def clean(
    cache: Annotated[bool, typer.Option("--cache", help="also the downloads that all checkouts share")] = False,
) -> None:
    """Stop all servers, and remove data, logs, runs and the result page."""
    settings = Settings.load()
    Stack(settings, tell=console.print).down(clean=True)
    places = [settings.home, *([settings.cache] if cache else [])]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    if left := [str(place) for place in places if place.is_dir() and any(place.iterdir())]:
        raise LabError(f"{' and '.join(left)} could not be removed whole.")
    console.print(f"removed {' and '.join(map(str, places))}")


def _checks(place: Path) -> dict[str, list[str]]:
    """The checks' commands, with their caches in the place."""
    folders = ROOT / "shared", *(lab.folder for lab in labs())
    ruff, mypy = ["--cache-dir", str(place / ".ruff_cache")], ["--cache-dir", str(place / ".mypy_cache")]
    return {
        "ruff": ["ruff", "check", *ruff, *PLACES],
        "format": ["ruff", "format", "--check", *ruff, *PLACES],
        # One lab at a time: each has a module `tests.conftest`.
        **{f"mypy {folder.name}": ["mypy", *mypy, str(folder)] for folder in folders},
        "figures": ["cogapp", "--check", "-I", str(ROOT), *documents()],
    }


def _passes(name: str, argv: list[str]) -> bool:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", check=False)
    console.print(f"  {TICK if done.returncode == 0 else CROSS} {name}")
    if done.returncode:
        print(done.stdout + done.stderr)
    return done.returncode == 0


def _report(what: str, problem: str) -> bool:
    console.print(f"  {CROSS if problem else TICK} {what}{f': {problem}' if problem else ''}")
    return not problem


def _needed(settings: Settings) -> list[tuple[str, str]]:
    return [
        (f"Python {platform.python_version()}", "" if sys.version_info >= (3, 11) else "3.11 or newer is needed"),
        ("a Java runtime", _problem(java_home)),
        *(
            (f"{server.title}, native", server.unavailable())
            for server in SERVERS.values()
            if server.name != "eventstoredb"
        ),
        ("the cache can be written", _unwritable(settings.cache, "LAB_CACHE")),
        ("the home can be written", _unwritable(settings.home, "LAB_HOME")),
        (f"{DISK_GB} GB of disk for the cache", _disk(settings)),
        (f"{MEMORY_GB} GB of memory", _memory()),
        *((f"ports of {name}", problem) for name, problem in _ports(settings)),
    ]


def _ports(settings: Settings) -> Iterator[tuple[str, str]]:
    stack = Stack(settings)
    for server in SERVERS.values():
        if stack.find(server.name) is None:
            ports = {role: settings.port(server.name, role, default) for role, default in server.ports.items()}
            yield server.name, _problem(partial(native.check_ports, server.name, ports))


def _problem(ask: Callable[[], object]) -> str:
    try:
        ask()
    except LabError as error:
        return str(error)
    return ""


def _unwritable(folder: Path, variable: str = "") -> str:
    """Why the folder cannot be written, by trying; empty when it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 8192)
    except OSError as error:
        return f"{folder}: {error.strerror}" + (
            f"; set {variable} to a folder that you may write to" if variable else ""
        )
    return ""


def _disk(settings: Settings) -> str:
    place = next(folder for folder in (settings.cache, *settings.cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    return "" if free > DISK_GB else f"{free:.1f} GB free under {place}; set LAB_CACHE to a larger disk"


def _memory() -> str:
    total = psutil.virtual_memory().total / 1e9
    return "" if total > MEMORY_GB * 0.9 else f"{total:.1f} GB"
