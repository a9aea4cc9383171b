"""A benchmark: an experiment whose figures have targets, with a command line that says how far they are reached.

experiment = Benchmark(title="...", targets={"ours_vs_theirs": Target(">=", 2.0, "...")}, quick="1 round: two minutes")
"""

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from shared.errors import LabError
from shared.experiment import Experiment
from shared.output import Output
from shared.run import Run, Scale

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt, "==": operator.eq}


@dataclass(frozen=True)
class Target:
    """What a figure is to reach, and what it says when it does."""

    sign: Literal[">=", "<=", "<", "=="]
    bound: float
    text: str

    def reached(self, value: float) -> bool:
        return bool(COMPARE[self.sign](value, self.bound))

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}"


class Benchmark(Experiment):
    """`targets` by the name of their figure; `quick` tells what --quick, which is scale demo, leaves out."""

    def __init__(self, title: str, targets: Mapping[str, Target], quick: str) -> None:
        super().__init__(title)
        self.targets = targets
        self.quick = quick

    def claim_targets(self, run: Run) -> None:
        """One claim per target: a shortfall is seen as one. Raises KeyError when a figure was not measured."""
        values = {figure.name: figure.value for figure in run.figures}
        for name, target in self.targets.items():
            run.claim(target.text, target.reached(values[name]), fact=f"{name} {values[name]:.3g}, {target}")

    @property
    def taught(self) -> str:
        """The targets as lines of help."""
        return "\n".join(f"{name} {target}: {target.text}" for name, target in self.targets.items())

    def main(self) -> None:
        """Run as a script."""
        text = f"{self.text}\n\nThe figures, each with its target:\n\n{self.taught}"

        def command(
            as_json: Annotated[bool, typer.Option("--json", help="print one JSON object with the keys below")] = False,
            quick: Annotated[bool, typer.Option("--quick", help=self.quick)] = False,
            seed: int = 1,
        ) -> None:
            self.measure(Scale.DEMO if quick else Scale.FULL, seed, as_json)

        self.as_script(command, text)

    def measure(self, scale: Scale, seed: int, as_json: bool) -> None:
        """Exits 1 when it could not be measured; a target that is missed is a result."""
        output = Output(silent=as_json)
        record, folder = self.execute(scale, seed, None, output)
        if record.error:
            raise LabError(record.error)
        if as_json:
            print(json.dumps({key: round(record.figure(key).value, 3) for key in self.targets}))
        output.closing(record, str(folder))
