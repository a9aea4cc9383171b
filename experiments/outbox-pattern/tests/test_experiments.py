"""Every experiment of the lab, small: it holds, and what its topics promise is claimed."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.labs import find
from shared.record import RunRecord
from shared.servers.server import Endpoint

LAB = find("outbox-pattern")
# Their claims count and do not time, and they wait for most of it: they run side by side, the longest first.
SIDE_BY_SIDE = ("09", "12", "10", "02", "07", "01")
Done = subprocess.CompletedProcess[str]


def run(script: Path) -> Done:
    argv = [sys.executable, str(script), "--scale", "smoke", "--seed", "1", "--json"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(request: pytest.FixtureRequest, postgres: Endpoint, kafka: Endpoint, connect: Endpoint) -> dict[Path, Done]:
    wanted = {item.callspec.params.get("script") for item in request.session.items if hasattr(item, "callspec")}
    scripts = [path for number in SIDE_BY_SIDE for path in LAB.scripts if path.name.startswith(number)]
    scripts = [path for path in scripts if path in wanted]
    with ThreadPoolExecutor(3) as pool:
        return dict(zip(scripts, pool.map(run, scripts), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("script", LAB.scripts, ids=lambda script: script.stem)
def test_it_holds_at_scale_smoke(script: Path, done: dict[Path, Done]) -> None:
    found = done.get(script) or run(script)
    record = RunRecord.model_validate_json(found.stdout) if found.stdout else None
    assert found.returncode == 0, found.stderr + found.stdout
    assert record is not None
    assert {topic for claim in record.claims for topic in claim.topics} == set(record.topics)
