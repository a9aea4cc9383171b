"""lab report, evidence, coverage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from shared import evidence, labs
from shared.commands.running import SeedOption, options, run_all
from shared.errors import LabError
from shared.output import make_console
from shared.record import covered, latest
from shared.report import syllabus
from shared.report.site import build, build_evidence
from shared.report.standalone import standalone
from shared.run import Scale
from shared.settings import ROOT, Settings

console = make_console()
TOPICS = ROOT / "docs" / "syllabus.yaml"
AsJson = Annotated[bool, typer.Option("--json", help="for scripts")]


def show_report(
    open_it: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    of_evidence: Annotated[bool, typer.Option("--evidence", help="of docs/evidence instead of runs here")] = False,
) -> None:
    """Make the result page from the last run of every experiment."""
    home = Settings.load().home
    page = build_evidence(evidence.committed(), home, ROOT) if of_evidence else build(home, ROOT)
    console.print(f"result page: [bold]{page.as_uri()}[/bold]")
    if open_it:
        typer.launch(page.as_uri())


def make_evidence(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[LAB | LAB/NUMBER]...", help="default: all")] = None,
    seed: SeedOption = 1,
    from_last: Annotated[bool, typer.Option("--from-last", help="take the last runs instead of running")] = False,
) -> None:
    """Run at scale full, and commit-ready: docs/evidence and every document and figure that is made of it."""
    chosen = list(labs.scripts(targets or [lab.name for lab in labs.labs()]))
    held = from_last or run_all(chosen, options(Scale.FULL, seed, None))
    names = {(script.parent.name, script.stem) for script in chosen}
    for _, record in latest(Settings.load().home / "runs"):
        if (record.lab, record.experiment) in names:
            console.print(f"{record.verdict}: {evidence.keep(record).relative_to(ROOT)}")
    write_documents()
    raise typer.Exit(0 if held else 1)


def coverage(as_json: AsJson = False) -> None:
    """Which of the syllabus' topics a claim demonstrates that held in the last run."""
    proofs = covered(evidence.newest(Settings.load().home))
    topics = {topic.id: proofs.get(topic.id, []) for section in syllabus.read(TOPICS) for topic in section.topics}
    held = sum(bool(claims) for claims in topics.values())
    if as_json:
        print(json.dumps({"covered": held, "total": len(topics), "topics": topics}, indent=1))
        return
    for section in syllabus.read(TOPICS):
        shown = sum(bool(topics[topic.id]) for topic in section.topics)
        console.print(f"{section.id}  {section.title:<32} {shown:>3} of {len(section.topics)}")
    console.print(f"in all {held} of {len(topics)}")


def write_documents() -> None:
    """The documents that are made whole, the picture of the README, and the cog blocks of all documents.

    Raises LabError when a document asks for a record that is not there yet.
    """
    for path, text in made_documents().items():
        path.write_text(text, encoding="utf-8")
    (ROOT / "docs" / "picture.svg").write_text(standalone(build(Settings.load().home, ROOT)), encoding="utf-8")
    argv = [sys.executable, "-m", "cogapp", "-r", "-I", str(ROOT), *documents()]
    if subprocess.run(argv, check=False, cwd=ROOT).returncode:
        raise LabError("the records are kept, but the documents are not renewed: above stands what one of them lacks")


def made_documents() -> dict[Path, str]:
    """The text of each document that is made of the committed evidence and of nothing else."""
    records = list(evidence.committed())
    return {
        ROOT / "docs" / "syllabus.md": evidence.syllabus(syllabus.read(TOPICS), records),
        ROOT / "docs" / "known-bugs.md": evidence.bugs(records),
    }


def documents() -> list[str]:
    """Every document that may hold cog blocks."""
    return [
        str(path)
        for pattern in ("README.md", "docs/adr/*.md", "experiments/*/README.md")
        for path in ROOT.glob(pattern)
    ]
