"""The lines that make a right way right, and whether a test would notice if one of them were wrong.

A lab writes them down in tests/mutations.toml, each with its mutation and the tests that must go red:

    [[mutation]]
    file = "outbox/inbox.py"                        # relative to the lab's folder, like the tests
    text = "a piece of a line, once in the file"
    mutant = "what takes its place"
    breaks = "One sentence: what it would break."
    tests = ["tests/test_inbox.py::test_name"]      # at least one of them must go red

Each is tried in a copy of the checkout. Mutation testing after DeMillo, Lipton and Sayward, "Hints on Test Data
Selection" (Computer 11(4), 1978); by hand, since nobody can wait for every mutant of a test that starts servers.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from shared import codec
from shared.errors import ConfigurationError, LabError, NotReadable
from shared.servers.native import last_words
from shared.signals import undisturbed

PAUSE, PATIENCE = 0.2, 30.0  # seconds between two looks at a pytest; seconds that it has to end when it is told to
RED = 1  # what pytest exits with when a test failed; 2 to 5: it could not be run
WHERE = """
import importlib.util, sys
print(*(importlib.util.find_spec(name).origin for name in sys.argv[1:]), sep="\\n")
"""


class Mutation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the file above."""

    file: str
    text: str
    mutant: str
    breaks: str
    tests: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class _Listing(msgspec.Struct, forbid_unknown_fields=True):
    mutation: Annotated[list[Mutation], msgspec.Meta(min_length=1)]


class Verdict(StrEnum):
    KILLED = "killed"  # a test went red
    SURVIVED = "survived"  # none did
    INVALID = "invalid"  # it could not be tried


@dataclass(frozen=True)
class Trial:
    """What became of a mutant; `reason` is for one that is invalid."""

    mutation: Mutation
    verdict: Verdict
    seconds: float = 0.0
    reason: str = ""


def listing(lab: Path) -> Path:
    """Where the lab in this folder writes its mutations down."""
    return lab / "tests" / "mutations.toml"


def read(lab: Path) -> list[Mutation]:
    """The mutations of the lab in this folder. Raises ConfigurationError where they are not what they should be."""
    path = listing(lab)
    try:
        return codec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Listing).mutation
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, NotReadable) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error


def oddity(lab: Path, mutation: Mutation) -> str:
    """Why the mutation cannot be tried; empty when it can."""
    file = lab / mutation.file
    missing = [name for name in map(_file_of, mutation.tests) if not (lab / name).is_file()]
    if not file.is_file() or missing:
        return f"there is no {', '.join(missing) or mutation.file}"
    if found := file.read_text(encoding="utf-8").count(mutation.text) - 1:
        return f"its text is {'not' if found < 0 else f'{found + 1} times'} in {mutation.file}: {mutation.text!r}"
    return "it changes nothing" if mutation.text == mutation.mutant else ""


class Bench:
    """Copies of a checkout, in a temporary folder, and pytest at work in them. `environment` is that of pytest."""

    def __init__(self, root: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.folder = folder
        self.environment = environment
        self._stopped = threading.Event()

    def require_green(self, lab: Path, tests: Iterable[str]) -> None:
        """Raises LabError when a test is red, skipped or not to be found without any mutation, or runs other code."""
        with self._copy() as copy:
            self._require_own_code(copy)
            code, said = self._pytest(copy / lab.relative_to(self.root), [*tests, "--explained-skips", os.devnull])
        if code:
            raise LabError(f"{lab.name}: its tests are not green as it stands, so a red one proves nothing: {said}")

    def try_all(
        self, lab: Path, mutations: Sequence[Mutation], tell: Callable[[Trial], None], jobs: int = 1
    ) -> list[Trial]:
        """Try them, so many at once; each trial is told in its turn."""
        done: list[Trial] = []
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for trial in pool.map(lambda mutation: self._try(lab, mutation), mutations):
                    tell(trial)
                    done.append(trial)
            except BaseException:
                with undisturbed():
                    self._stopped.set()
                    pool.shutdown(cancel_futures=True)
                raise
        return done

    def _try(self, lab: Path, mutation: Mutation) -> Trial:
        if reason := oddity(lab, mutation):
            return Trial(mutation, Verdict.INVALID, reason=reason)
        began = time.monotonic()
        with self._copy() as copy:
            there = copy / lab.relative_to(self.root)
            text = (there / mutation.file).read_text(encoding="utf-8")
            (there / mutation.file).write_text(text.replace(mutation.text, mutation.mutant), encoding="utf-8")
            code, said = self._pytest(there, mutation.tests)
        seconds = time.monotonic() - began
        if code in (0, RED):
            return Trial(mutation, Verdict.KILLED if code else Verdict.SURVIVED, seconds)
        return Trial(mutation, Verdict.INVALID, seconds, f"pytest ended with {code}: {said}")

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        """What git has or would take, as it stands. Anew for each mutant: Python trusts what it compiled before."""
        with tempfile.TemporaryDirectory(prefix="mutant-", dir=self.folder) as name:
            copy = Path(name) / self.root.name
            for file in _committed(self.root):
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.root / file, copy / file)
            yield copy

    def _pytest(self, lab: Path, words: Sequence[str]) -> tuple[int, str]:
        """Its exit code and last words. In a session of its own, so that nothing of it is left."""
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words]
        environment, log = self._environment(lab.parents[1]), lab / "pytest.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                argv,
                cwd=lab,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                while process.poll() is None and not self._stopped.is_set():
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(PAUSE)
            finally:
                _end(process)
        return process.returncode, last_words(log, 3)

    def _environment(self, copy: Path) -> dict[str, str]:
        """Before the folders of the editable install, which are the original's, stand those of the copy."""
        return {**self.environment, "PYTHONPATH": os.pathsep.join(map(str, _places(copy)))}

    def _require_own_code(self, copy: Path) -> None:
        packages = [init.parent.name for place in _places(copy) for init in place.glob("*/__init__.py")]
        argv, environment = [sys.executable, "-c", WHERE, *packages], self._environment(copy)
        done = subprocess.run(argv, cwd=copy, env=environment, capture_output=True, text=True, check=True)
        for origin in done.stdout.split("\n")[:-1]:
            if not Path(origin).is_relative_to(copy):
                raise LabError(f"tests would run {origin}, and not the copy that is mutated; look at PYTHONPATH")


def _places(checkout: Path) -> list[Path]:
    """The folders from which packages are imported."""
    return [checkout, *sorted(path for path in (checkout / "experiments").glob("*") if path.is_dir())]


def _committed(root: Path) -> list[str]:
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{root}: git cannot say what belongs to the checkout: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name and (root / name).is_file()]


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Have it end as by Ctrl-C, or else by force, and all that it left with it."""
    with undisturbed():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        with suppress(ProcessLookupError, PermissionError):  # macOS has the latter for one that has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
