"""lab list."""

import json
from typing import Annotated

import typer

from shared import labs
from shared.output import make_console
from shared.record import latest
from shared.settings import Settings

console = make_console()
AsJson = Annotated[bool, typer.Option("--json", help="for scripts")]


def show_list(as_json: AsJson = False) -> None:
    """Labs, their questions, servers and the last verdicts."""
    verdicts = {(r.lab, r.experiment): r.verdict for _, r in latest(Settings.load().home / "runs")}
    if as_json:
        print(json.dumps([_describe(lab, verdicts) for lab in labs.labs()], indent=1))
        return
    for lab in labs.labs():
        console.print(f"\n[bold]{lab.name}[/bold]  {lab.question} [dim]({', '.join(lab.servers)})[/dim]")
        for experiment in lab.experiments:
            verdict = verdicts.get((lab.name, experiment.name), "not run here yet")
            console.print(f"  {experiment.name:<28} {experiment.title} [dim]— {verdict}[/dim]")
    console.print("\nrun one with: lab run LAB/NUMBER")


def _describe(lab: labs.Lab, verdicts: dict[tuple[str, str], str]) -> dict[str, object]:
    experiments = [
        {
            "name": experiment.name,
            "title": experiment.title,
            "question": experiment.question,
            "servers": list(experiment.servers),
            "last_verdict": verdicts.get((lab.name, experiment.name)),
        }
        for experiment in lab.experiments
    ]
    return {
        "lab": lab.name,
        "title": lab.title,
        "question": lab.question,
        "section": lab.section,
        "servers": lab.servers,
        "experiments": experiments,
    }
