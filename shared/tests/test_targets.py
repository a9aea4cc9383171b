"""A benchmark's arithmetic and its command line: what it calls reached, what it calls missed, what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.output import Output
from shared.run import Run, Scale
from shared.servers.stack import Stack
from shared.settings import Settings
from shared.targets import Benchmark, Target

TARGETS = {
    "ratio": Target(">=", 2.0, "twice as fast"),
    "latency": Target("<", 50.0, "within 50 ms"),
    "growth": Target("<=", 20.0, "grows by 20 MB at most"),
    "lost": Target("==", 0.0, "nothing is lost"),
}
REACHED = {"ratio": 2.0, "latency": 49.9, "growth": 20.0, "lost": 0.0}
MISSED = {"ratio": 1.99, "latency": 50.0, "growth": 20.1, "lost": 1.0}
SCRIPT = '''
"""One against the other.

With more words.
"""
from shared.targets import Benchmark, Target

experiment = Benchmark("One", {"ratio": Target(">=", 2.0, "twice as fast")}, quick="half of it")


@experiment.run
def main(run):
    if run.seed == 13:
        raise RuntimeError("no luck")
    run.figure("ratio", run.pick(0.0, 1.0, 3.0), "x")
    experiment.claim_targets(run)


if __name__ == "__main__":
    experiment.main()
'''


@pytest.fixture
def run(tmp_path: Path, settings: Settings) -> Run:
    return Run(tmp_path / "lab" / "run", Stack(settings), {}, Scale.SMOKE, 1, Output(silent=True))


def measure(run: Run, **others: float) -> dict[str, bool]:
    """Claim all targets on figures that just reach them, but for `others`; returns claims by their fact's figure."""
    for name, value in {**REACHED, **others}.items():
        run.figure(name, value, "x")
    Benchmark("one", TARGETS, "").claim_targets(run)
    return {claim.fact.split()[0]: claim.holds for claim in run.claims}


def test_figures_that_just_reach_their_bounds_reach_the_targets(run: Run) -> None:
    assert measure(run) == dict.fromkeys(TARGETS, True)


@pytest.mark.parametrize("name", TARGETS)
def test_a_figure_beyond_its_bound_falls_short_and_no_other_does(run: Run, name: str) -> None:
    claims = measure(run, **{name: MISSED[name]})
    assert [short for short, holds in claims.items() if not holds] == [name]


def test_a_figure_that_was_not_measured_is_an_error(run: Run) -> None:
    with pytest.raises(KeyError, match="ratio"):
        Benchmark("one", TARGETS, "").claim_targets(run)


def test_the_command_line_measures_and_prints_one_object_and_teaches_the_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    script = tmp_path / "bench.py"
    script.write_text(SCRIPT)

    def said(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)

    whole, quick, failed, taught = said("--json"), said("--json", "--quick"), said("--seed", "13"), said("--help")
    assert [json.loads(done.stdout) for done in (whole, quick)] == [{"ratio": 3.0}, {"ratio": 1.0}]
    assert (whole.returncode, quick.returncode) == (0, 0)  # a target that is missed is a result
    assert (failed.returncode, "RuntimeError: no luck" in failed.stderr) == (1, True), failed
    assert all(words in taught.stdout for words in ("With more words", "ratio >= 2: twice as fast", "half of it"))
