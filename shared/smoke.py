"""What every lab's tests do with its experiments: run each as a user would, small, and see that it keeps its word."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.labs import declared, find
from shared.record import RunRecord
from shared.servers.server import Endpoint

AT_ONCE = 3
Done = subprocess.CompletedProcess[str]


class Smoke:
    """The experiments of a lab at scale smoke.

    Those `side_by_side`, by number, run when the first of them is asked for, so many at once: experiments whose claims
    count and do not time, and which wait for most of it. The longest come first.
    """

    def __init__(self, lab: str, side_by_side: Sequence[str] = ()) -> None:
        self.scripts = find(lab).scripts
        self._together = [path for number in side_by_side for path in self.scripts if path.name.startswith(number)]
        self._done: dict[Path, Done] = {}

    def check(self, script: Path, request: pytest.FixtureRequest, server: Callable[[str], Endpoint]) -> None:
        """It holds, and every topic that it declares is claimed. `server` is the fixture of that name.

        Raises AssertionError with what it said.
        """
        items = (getattr(item, "callspec", None) for item in request.session.items)
        wanted = {item.params.get("script") for item in items if item}
        todo = [path for path in self._together if path in wanted] if script in self._together else [script]
        todo = [path for path in todo if path not in self._done]
        for name in dict.fromkeys(name for path in todo for name in declared(path).servers):
            server(name)  # up for the session, and not for each of them anew
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self._done |= zip(todo, pool.map(_run, todo), strict=True)
        try:
            _judge(self._done[script])
        except AssertionError:
            del self._done[script]  # asked again, it runs again
            raise


def _run(script: Path) -> Done:
    argv = [sys.executable, str(script), "--scale", "smoke", "--seed", "1", "--json"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _judge(done: Done) -> None:
    if done.returncode or not done.stdout:
        raise AssertionError(done.stderr + done.stdout)
    record = RunRecord.model_validate_json(done.stdout)
    claimed = {topic for claim in record.claims for topic in claim.topics}
    if claimed != set(record.topics):
        raise AssertionError(f"declared or claimed, and not both: {claimed ^ set(record.topics)}")
