"""Scripts run one after the other, each in a process of its own, on servers that all share."""

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from shared import labs, signals
from shared.output import make_console
from shared.run import Scale
from shared.servers.stack import Stack
from shared.settings import Provider, Settings

T = TypeVar("T")

console = make_console()
ScaleOption = Annotated[Scale, typer.Option(help="smoke: proves it works; demo: for watching; full: for evidence")]
SeedOption = Annotated[int | None, typer.Option(help="repeat a run with its seed")]
ProviderOption = Annotated[Provider | None, typer.Option(help="who starts servers that do not run yet")]


def options(scale: Scale, seed: int | None, provider: Provider | None, *flags: str) -> list[str]:
    """The words for a script."""
    given = {"--scale": scale, "--seed": seed, "--provider": provider}
    return [word for name, value in given.items() if value is not None for word in (name, str(value))] + list(flags)


def on_servers(scripts: Iterable[Path], provider: Provider | None, keep: bool, work: Callable[[], T]) -> T:
    """What the work returns, which finds all servers running that the scripts need."""
    needed = dict.fromkeys(server for script in scripts for server in labs.declared(script).servers)
    stack = Stack(Settings.load(provider=provider), tell=console.print)
    if keep:
        stack.up(needed)
        return work()
    with stack.borrowed(needed):
        return work()


def run_all(scripts: Sequence[Path], words: Sequence[str], provider: Provider | None = None) -> bool:
    """Whether all of them hold. Those after one that fails run too."""
    held = on_servers(scripts, provider, "--keep" in words, lambda: [run_one(script, words) for script in scripts])
    return all(held)


def run_one(script: Path, words: Sequence[str], output: int | None = None) -> bool:
    """A signal to us reaches the script, which cleans up and says so; only then do we stop too."""
    child: subprocess.Popen[bytes] | None = None
    with signals.passed_on(lambda: child.terminate() if child else None) as heard:
        child = subprocess.Popen([sys.executable, str(script), *words], stdout=output)
        if heard:  # while it was being made
            child.terminate()
        code = child.wait()
    if heard or code == 130:
        signals.end()
    return code == 0
