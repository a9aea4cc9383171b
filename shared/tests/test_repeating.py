"""An experiment with one seed after the other, and what one run is worth in one line."""

import os
import subprocess
from pathlib import Path

import pytest

from shared.contrast import contrast
from shared.errors import ConfigurationError
from shared.record import Claim, RunRecord, latest
from shared.tests.report.samples import record
from shared.tests.servers.lab import COMMAND

SCRIPT = '''"""Does it hold?"""

from shared.experiment import Experiment, Run

experiment = Experiment(title="A title")


@experiment.run
def main(run: Run) -> None:
    run.claim("the seed is below 12", run.seed < 12)
    run.sometimes("the seed is 11", run.seed == 11)
    run.sometimes("the seed is 99", run.seed == 99)


if __name__ == "__main__":
    experiment.main()
'''


def repeat(folder: Path, seed: int, count: int) -> "subprocess.CompletedProcess[str]":
    script = folder / "a-lab" / "01_question.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(SCRIPT)
    words = [COMMAND, "run", str(script), "--scale", "smoke", "--seed", str(seed), "--repeat", str(count)]
    env = {**os.environ, "LAB_HOME": str(folder / "home"), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=200, check=False)


def kept(folder: Path) -> list[int]:
    return [one.seed for _, one in latest(folder / "home" / "runs")]


def test_the_record_of_the_first_seed_that_fails_is_kept_and_how_to_repeat_it_is_said(tmp_path: Path) -> None:
    done = repeat(tmp_path, 10, 4)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.strip().partition(",")[0] for line in lines if " seed 1" in line and "claims" in line] == [
        *("✔ seed 10: 1 of 1 claims hold", "✔ seed 11: 1 of 1 claims hold"),
        *("✘ seed 12: 0 of 1 claims hold", "✘ seed 13: 0 of 1 claims hold"),
    ]
    assert kept(tmp_path) == [12]
    assert any(line.endswith("a-lab/01 --seed 12 --scale smoke") for line in lines)


def test_what_must_be_seen_once_and_never_is_fails_all_of_them(tmp_path: Path) -> None:
    done = repeat(tmp_path, 10, 2)
    assert "✔ the seed is 11: seen with 1 of 2 seeds" in done.stdout
    assert "✘ the seed is 99: seen with 0 of 2 seeds" in done.stdout
    assert done.returncode == 1
    assert kept(tmp_path) == [11]  # none has failed by itself


def of(*claims: Claim) -> RunRecord:
    return record().model_copy(update={"claims": claims})


def test_a_contrast_is_of_one_topic() -> None:
    wrong = Claim(text="it loses", holds=True, topics=("a",), variant="naive", wrong_way=True, fact="3 lost")
    other = Claim(text="it is fast", holds=True, topics=("b",), variant="right", fact="1 s")
    right = Claim(text="it holds", holds=True, topics=("a",), variant="right", fact="0 lost")
    found = contrast(of(other, wrong, right))
    assert (found.wrong, found.right) == (wrong, right)
    with pytest.raises(ConfigurationError, match="no wrong way and right way"):
        contrast(of(other, wrong))
