"""lab up, down, status, logs."""

import json
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from shared import labs
from shared.errors import ConfigurationError
from shared.output import make_console, spinning
from shared.servers import compose, instance
from shared.servers.catalogue import SERVERS, find
from shared.servers.stack import Stack
from shared.servers.status import Status, without_password
from shared.settings import Provider, Settings

COLOURS = {"running": "green", "yours": "cyan", "starting": "yellow", "died": "bold red", "stopped": "dim"}
console = make_console()
Names = Annotated[list[str] | None, typer.Argument(metavar="[SERVER]...", help=f"any of: {', '.join(SERVERS)}")]


def up(
    servers: Names = None,
    lab: Annotated[str | None, typer.Option(help="the servers that this lab needs")] = None,
    provider: Annotated[Provider | None, typer.Option(help="native: processes; compose: Docker")] = None,
) -> None:
    """Start servers (default: postgres, kafka and connect), with what they need, and keep them running."""
    names = [*(servers or []), *(labs.find(lab).servers if lab else [])] or ["postgres", "kafka", "connect"]
    began = time.monotonic()
    stack = Stack(Settings.load(provider=provider), tell=console.print)
    for name in names:
        if found := stack.find(name):
            yours = f"{name} is yours, at {without_password(found.url)}: never started here"
            console.print(f"{name} runs already" if found.ours else yours)
    with spinning(console, "starting"):
        endpoints = stack.up(names)
    console.print(f"{', '.join(endpoints)} up in {time.monotonic() - began:.1f} s; stop with: lab down")


def down(
    servers: Names = None,
    clean: Annotated[bool, typer.Option("--clean", help="remove their data too")] = False,
) -> None:
    """Stop exactly what `lab up` or a run started (all, or these), also under a run. Data stays, unless --clean."""
    began = time.monotonic()
    with spinning(console, "stopping"):
        stopped = Stack(tell=console.print).down(servers or None, clean=clean)
    what = ", ".join(stopped) or "nothing was running"
    console.print(f"{what} {f'stopped in {time.monotonic() - began:.1f} s' if stopped else ''}".strip())


def status(as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False) -> None:
    """Which servers run, where, since how much memory; exits 1 when one has died."""
    found = Stack().status()
    if as_json:
        print(json.dumps([asdict(state) for state in found], indent=1))
    else:
        console.print(_table(found))
    if any(state.state == "died" for state in found):
        raise typer.Exit(1)


def logs(
    server: Annotated[str, typer.Argument(help=f"one of: {', '.join(SERVERS)}")],
    lines: Annotated[int, typer.Option("-n", min=0, help="how many lines from the end")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on until Ctrl-C")] = False,
) -> None:
    """The end of a server's log; also after it has stopped."""
    stack = Stack()
    record = instance.read(stack.folder(find(server).name))
    if record and record.provider == "compose":
        print(compose.logs(server, lines))
        return
    files = sorted(stack.folder(server).glob("*.log"))
    if not files:
        raise ConfigurationError(f"{server} has no log here: it was never started by `lab up`.")
    for file in files:
        print(f"==> {file} <==")
        with file.open(encoding="utf-8", errors="replace") as text:
            sys.stdout.writelines(deque(text, lines))
    sys.stdout.flush()  # a pipe would keep it until the log goes on
    if follow:
        _follow(files[-1])


def _table(found: list[Status]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("server", "state", "version", "started in", "RSS", "address"):
        table.add_column(column, justify="right" if column in ("started in", "RSS") else "left")
    for state in found:
        seconds = f"{state.seconds:.1f} s" if state.seconds else ""
        rss = f"{state.rss_mb:.0f} MB" if state.rss_mb else ""
        shown = f"[{COLOURS[state.state]}]{state.state}[/]"
        where = f"{state.url} ({state.provider})" if state.url else ""
        table.add_row(state.server, shown, state.version, seconds, rss, state.detail or where)
    return table


def _follow(file: Path) -> None:
    with file.open(encoding="utf-8", errors="replace") as text:
        text.seek(0, 2)
        while True:
            if line := text.readline():
                print(line, end="", flush=True)
            else:
                time.sleep(0.2)
