"""The benchmark's arithmetic: what it calls reached, what it calls missed, and what a fault schedule did."""

from pathlib import Path

import pytest
from saga.targets import TARGETS, claim_targets, taught

from shared.output import Output
from shared.run import Run, Scale
from shared.servers.stack import Stack
from shared.settings import Settings

REACHED = {name: bound - 0.01 if sign == "<" else bound for name, (sign, bound, _) in TARGETS.items()}
MISSED = {name: bound - 0.01 if sign == ">=" else bound + 1 for name, (sign, bound, _) in TARGETS.items()}


@pytest.fixture
def run(tmp_path: Path, settings: Settings) -> Run:
    return Run(tmp_path / "lab" / "run", Stack(settings), {}, Scale.SMOKE, 1, Output(silent=True))


def measure(run: Run, **others: float) -> dict[str, bool]:
    """Claim all targets on figures that just reach them, but for `others`; returns claims by their fact's figure."""
    for name, value in {**REACHED, **others}.items():
        run.figure(name, value, "x")
    claim_targets(run)
    return {claim.fact.split()[0]: claim.holds for claim in run.claims}


def test_figures_that_just_reach_their_bounds_reach_the_targets(run: Run) -> None:
    assert measure(run) == dict.fromkeys(TARGETS, True)


@pytest.mark.parametrize("name", TARGETS)
def test_a_figure_beyond_its_bound_falls_short_and_no_other_does(run: Run, name: str) -> None:
    claims = measure(run, **{name: MISSED[name]})
    assert [short for short, holds in claims.items() if not holds] == [name]


def test_the_help_names_every_target_with_its_bound() -> None:
    assert all(f"{name} {sign} {bound:g}" in taught() for name, (sign, bound, _) in TARGETS.items())
