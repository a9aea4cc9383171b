"""What a run says while it runs: live on a terminal, plain lines elsewhere, nothing but JSON with --json."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from shared.plain import CROSS, TICK
from shared.record import Claim, Figure, RunRecord

LONG = 2.0  # seconds
PLAIN_WIDTH = 160  # columns of a table in a log file


class Output:
    """Writes to a console; silent when told so. `brief`: long steps, claims that do not hold, and the verdict."""

    def __init__(self, *, silent: bool = False, brief: bool = False, console: Console | None = None) -> None:
        self.console = console or make_console(silent)
        self.brief = brief
        self._in_step = False
        self._waiting: list[Claim] = []

    def opening(self, title: str, question: str) -> None:
        self.console.print(f"\n[bold]{escape(title)}[/bold]\n{escape(question)}\n")

    def say(self, text: str) -> None:
        self.console.print(f"  [dim]{escape(text)}[/dim]")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part of the run: a spinner on a terminal, then a line with its time and the claims made in it."""
        began, self._in_step = time.monotonic(), True
        spinner = spinning(self.console, escape(name)) if self.console.is_terminal else nullcontext()
        with spinner:
            yield
        self._in_step, took = False, time.monotonic() - began
        if took > LONG or not self.brief:
            self.console.print(f"  {escape(name)} [dim]{took:.1f} s[/dim]")
        while self._waiting:
            self.claim(self._waiting.pop(0))

    def skipped(self, step: str, reason: str) -> None:
        self.console.print(f"  [yellow]not possible here:[/yellow] {escape(step)} [dim]({escape(reason)})[/dim]")

    def claim(self, claim: Claim) -> None:
        if self.brief and claim.holds:
            return
        if self._in_step:
            self._waiting.append(claim)
        else:
            self.console.print(f"  {_mark(claim)} {escape(claim.text)}{_fact(claim)}")

    def closing(self, record: RunRecord, folder: str) -> None:
        """The table naive vs right, the verdict and where the picture comes from."""
        if record.figures and not self.brief:
            self.console.print(_figures(record.figures))
        held = sum(claim.holds for claim in record.claims)
        colour = "green" if record.holds else "red"
        start = "" if self.brief else "\n"
        self.console.print(
            f"{start}[{colour}]{record.verdict}[/{colour}]: {held} of {len(record.claims)} claims hold", end=""
        )
        self.console.print(f" [dim]in {record.seconds:.1f} s, seed {record.seed}[/dim]")
        if not self.brief:
            self.console.print(f"[dim]record: {escape(folder)}; picture: lab report[/dim]")


def spinning(console: Console, text: str) -> Status:
    """The sign that something goes on, as the terminal can show it."""
    return console.status(text, spinner="dots" if console.encoding.startswith("utf") else "line")


def make_console(silent: bool = False) -> Console:
    """A console; where it is no terminal, with room for tables and without line breaks in sentences."""
    console = Console(quiet=silent, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _mark(claim: Claim) -> str:
    return f"[green]{TICK}[/green]" if claim.holds else f"[bold red]{CROSS}[/bold red]"


def _fact(claim: Claim) -> str:
    return f" [dim]— {escape(claim.fact)}[/dim]" if claim.fact else ""


def _figures(figures: Sequence[Figure]) -> Table:
    """Figures by name, one column per variant where there are any."""
    variants = list(dict.fromkeys(figure.variant for figure in figures))
    wrong = {figure.variant for figure in figures if figure.wrong_way}
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("figure")
    for variant in variants:
        style = "yellow" if variant in wrong else ""
        table.add_column(escape(variant or "value"), justify="right", style=style)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        row = figure.name + (
            f" at {figure.x_label} {figure.x:g}" if isinstance(figure.x, float) else f", {figure.x}" if figure.x else ""
        )
        rows.setdefault((row, figure.unit), {})[figure.variant] = show(figure)
    for (name, unit), cells in rows.items():
        table.add_row(f"{escape(name)} [dim]{escape(unit)}[/dim]", *(cells.get(variant, "") for variant in variants))
    return table


def show(figure: Figure) -> str:
    """A value with as many digits as it deserves, and its p99 where it has one."""
    text = number(figure.value)
    return text if figure.p99 is None else f"{text} (p99 {number(figure.p99)})"


def number(value: float) -> str:
    """1,234 or 12.3 or 0.0123: three digits, and no exponent."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
