"""lab list, run, demo, report, evidence, coverage."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shared import evidence, labs, report, signals
from shared.errors import LabError
from shared.output import CROSS, TICK, make_console
from shared.record import RunRecord, covered, latest
from shared.report import syllabus
from shared.report.standalone import standalone
from shared.run import Scale
from shared.servers.stack import Stack
from shared.settings import ROOT, Provider, Settings

console = make_console()
TOPICS = ROOT / "docs" / "syllabus.yaml"
AsJson = Annotated[bool, typer.Option("--json", help="for scripts")]
ScaleOption = Annotated[Scale, typer.Option(help="smoke: proves it works; demo: for watching; full: for evidence")]
SeedOption = Annotated[int | None, typer.Option(help="repeat a run with its seed")]
ProviderOption = Annotated[Provider | None, typer.Option(help="who starts servers that do not run yet")]


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


def run(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[LAB | LAB/NUMBER]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every experiment of every lab")] = False,
    scale: ScaleOption = Scale.DEMO,
    seed: SeedOption = None,
    provider: ProviderOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave schema, topics and servers for a look")] = False,
) -> None:
    """Run experiments; exits 1 when a claim does not hold."""
    names = [lab.name for lab in labs.labs()] if everything else targets
    if not names:
        raise typer.BadParameter("name a lab or an experiment (see `lab list`), or say --all")
    options = _options(scale, seed, provider, keep)
    raise typer.Exit(0 if _run_all(list(labs.scripts(names)), options, provider) else 1)


def demo(scale: ScaleOption = Scale.DEMO, seed: SeedOption = None, provider: ProviderOption = None) -> None:
    """The tour: the flagship experiments of every lab, a table of their claims, and the result page."""
    began = time.monotonic()
    scripts = labs.tour()
    held = _run_all(scripts, _options(scale, seed, provider, keep=False), provider)
    names = {(script.parent.name, script.stem) for script in scripts}
    records = [r for _, r in latest(Settings.load().home / "runs") if (r.lab, r.experiment) in names]
    console.print(_claims(records))
    page = build_report()
    claims = [claim for record in records for claim in record.claims]
    console.print(f"\n{sum(c.holds for c in claims)} of {len(claims)} claims hold, in {time.monotonic() - began:.0f} s")
    console.print(f"result page: [bold]{page.as_uri()}[/bold]")
    raise typer.Exit(0 if held else 1)


def show_report(
    open_it: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    of_evidence: Annotated[bool, typer.Option("--evidence", help="of docs/evidence instead of runs here")] = False,
) -> None:
    """Make the result page from the last run of every experiment."""
    page = build_evidence() if of_evidence else build_report()
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
    held = from_last or _run_all(chosen, _options(Scale.FULL, seed, None, keep=False), None)
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


def mount(cli: typer.Typer) -> None:
    cli.command("list")(show_list)
    cli.command()(run)
    cli.command()(demo)
    cli.command("report")(show_report)
    cli.command("evidence")(make_evidence)
    cli.command()(coverage)


def build_report() -> Path:
    return report.build(Settings.load().home, ROOT)


def build_evidence() -> Path:
    return report.build_evidence(evidence.committed(), Settings.load().home, ROOT)


def write_documents() -> None:
    """The documents that are made whole, the picture of the README, and the cog blocks of all documents.

    Raises LabError when a document asks for a record that is not there yet.
    """
    for path, text in made_documents().items():
        path.write_text(text, encoding="utf-8")
    (ROOT / "docs" / "picture.svg").write_text(standalone(build_report()), encoding="utf-8")
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


def _options(scale: Scale, seed: int | None, provider: Provider | None, keep: bool) -> list[str]:
    given = {"--scale": scale, "--seed": seed, "--provider": provider}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return [*options, "--keep"] if keep else options


def _run_all(scripts: Sequence[Path], options: Sequence[str], provider: Provider | None) -> bool:
    """Run scripts one after the other, each in a process of its own, on servers that all share."""
    needed = dict.fromkeys(server for script in scripts for server in labs.load(script).servers)
    stack = Stack(Settings.load(provider=provider), tell=console.print)
    keep = "--keep" in options
    if keep:
        stack.up(needed)
        return _each(scripts, options)
    with stack.borrowed(needed):
        return _each(scripts, options)


def _each(scripts: Sequence[Path], options: Sequence[str]) -> bool:
    """All of them, also after one that fails."""
    held = [_run_one(script, options) for script in scripts]
    return all(held)


def _run_one(script: Path, options: Sequence[str]) -> bool:
    """A signal to us reaches the script, which cleans up and says so; only then do we stop too."""
    child: subprocess.Popen[bytes] | None = None
    with signals.passed_on(lambda: child.terminate() if child else None) as heard:
        child = subprocess.Popen([sys.executable, str(script), *options])
        if heard:  # while it was being made
            child.terminate()
        code = child.wait()
    if heard or code == 130:
        signals.end()
    return code == 0


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


def _claims(records: Sequence[RunRecord]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "claim", "figure"):
        table.add_column(column)
    for record in records:
        table.add_row("", f"[bold]{escape(record.title)}[/bold]", "")
        for claim in record.claims:
            table.add_row(TICK if claim.holds else CROSS, escape(claim.text), escape(claim.fact))
    return table
