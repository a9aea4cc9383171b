"""lab run, demo."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from shared import labs
from shared.commands.running import ProviderOption, ScaleOption, SeedOption, options, run_all
from shared.output import make_console
from shared.plain import CROSS, TICK
from shared.record import RunRecord, latest
from shared.report.site import build
from shared.run import Scale
from shared.settings import ROOT, Settings

console = make_console()


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
    words = options(scale, seed, provider, *["--keep"] * keep)
    raise typer.Exit(0 if run_all(list(labs.scripts(names)), words, provider) else 1)


def demo(scale: ScaleOption = Scale.DEMO, seed: SeedOption = None, provider: ProviderOption = None) -> None:
    """The tour: the flagship experiments of every lab, a table of their claims, and the result page."""
    began = time.monotonic()
    scripts = labs.tour()
    held = run_all(scripts, options(scale, seed, provider), provider)
    names = {(script.parent.name, script.stem) for script in scripts}
    records = [r for _, r in latest(Settings.load().home / "runs") if (r.lab, r.experiment) in names]
    console.print(_claims(records))
    page = build(Settings.load().home, ROOT)
    claims = [claim for record in records for claim in record.claims]
    console.print(f"\n{sum(c.holds for c in claims)} of {len(claims)} claims hold, in {time.monotonic() - began:.0f} s")
    console.print(f"result page: [bold]{page.as_uri()}[/bold]")
    raise typer.Exit(0 if held else 1)


def _claims(records: Sequence[RunRecord]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "claim", "figure"):
        table.add_column(column)
    for record in records:
        table.add_row("", f"[bold]{escape(record.title)}[/bold]", "")
        for claim in record.claims:
            table.add_row(TICK if claim.holds else CROSS, escape(claim.text), escape(claim.fact))
    return table
