"""Every experiment of the lab, small: it holds, and what its topics promise is claimed."""

import subprocess
import sys
from pathlib import Path

import pytest

from shared.labs import find
from shared.record import RunRecord
from shared.servers.server import Endpoint

LAB = find("saga-pattern")


@pytest.mark.slow
@pytest.mark.parametrize("script", LAB.scripts, ids=lambda script: script.stem)
def test_it_holds_at_scale_smoke(script: Path, postgres: Endpoint, kafka: Endpoint) -> None:
    argv = [sys.executable, str(script), "--scale", "smoke", "--seed", "1", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    record = RunRecord.model_validate_json(done.stdout) if done.stdout else None
    assert done.returncode == 0, done.stderr + done.stdout
    assert record is not None
    assert {topic for claim in record.claims for topic in claim.topics} == set(record.topics)
