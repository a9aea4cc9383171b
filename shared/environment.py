"""What a run runs on, so that a figure can be read with its circumstances."""

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import psutil

from shared.record import Environment
from shared.servers.catalogue import find
from shared.servers.server import Endpoint
from shared.settings import ROOT

LIBRARIES = "confluent-kafka", "psycopg", "cloudevents", "temporalio", "sqlalchemy", "fastavro"


def describe(folder: Path, endpoints: Iterable[Endpoint]) -> Environment:
    """The machine, the libraries, the servers as they answer now, and the disk under `folder`."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpus=psutil.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        load=round(os.getloadavg()[0], 2),
        fsync_ms=fsync_ms(folder),
        commit=commit(),
        libraries={name: version(name) for name in LIBRARIES},
        servers={endpoint.server: _server(endpoint) for endpoint in endpoints},
    )


def fsync_ms(folder: Path, times: int = 20) -> float:
    """Median time of an 8 kB write with fsync in the folder, in ms: what a commit costs at least."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"\0" * 8192)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1000, 3)


def commit() -> str:
    """The commit of the checkout, with a plus sign where the tree differs from it; empty outside git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _server(endpoint: Endpoint) -> str:
    return f"{find(endpoint.server).probe(endpoint)} ({endpoint.provider})"
