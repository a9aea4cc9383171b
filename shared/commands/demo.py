"""lab demo."""

import time
from collections.abc import Sequence

import typer
from rich.markup import escape
from rich.table import Table

from shared import labs
from shared.commands.running import ProviderOption, ScaleOption, SeedOption, options, run_all
from shared.contrast import Contrast, contrast
from shared.output import make_console
from shared.plain import CROSS, TICK
from shared.record import Claim, latest
from shared.report.site import build
from shared.run import Scale
from shared.settings import ROOT, Settings

console = make_console()
WIDTH = 80  # columns of the table, whatever the terminal has


def demo(scale: ScaleOption = Scale.DEMO, seed: SeedOption = None, provider: ProviderOption = None) -> None:
    """The tour: one flagship experiment of each lab, what the wrong way and the right way did, and the result page."""
    began = time.monotonic()
    scripts, home = labs.tour(), Settings.load().home
    held = run_all(scripts, options(scale, seed, provider, "--brief"), provider)
    names = {(script.parent.name, script.stem) for script in scripts}
    found = [record for _, record in latest(home / "runs") if (record.lab, record.experiment) in names]
    console.print(_table([contrast(record) for record in found]))
    page = build(home, ROOT)
    claims = [claim for record in found for claim in record.claims]
    console.print(f"{sum(c.holds for c in claims)} of {len(claims)} claims hold, in {time.monotonic() - began:.0f} s")
    console.print("all of them, with figures, charts and the recorded histories as pictures:")
    console.print(f"  [bold]{page.as_uri()}[/bold]")
    raise typer.Exit(0 if held else 1)


def _table(found: Sequence[Contrast]) -> Table:
    table = Table(title="\nunder the same load and the same faults", title_justify="left", box=None, width=WIDTH)
    for column in ("the wrong way", "the right way"):
        table.add_column(column, ratio=1)
    for one in found:
        table.add_row(f"\n[dim]{escape(one.record.lab)}[/dim]")
        table.add_row(_cell(one.wrong), _cell(one.right))
    return table


def _cell(claim: Claim) -> str:
    return f"{TICK if claim.holds else CROSS} {escape(claim.text)}: [bold]{escape(claim.fact)}[/bold]"
