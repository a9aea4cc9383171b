"""lab mutate."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from shared import labs
from shared.errors import ConfigurationError
from shared.mutations import Bench, Mutation, Trial, Verdict, listing, oddity, read
from shared.output import make_console
from shared.plain import CROSS, TICK
from shared.servers import native
from shared.servers.catalogue import SERVERS
from shared.servers.stack import Stack
from shared.settings import ROOT, Settings

console = make_console()


def mutate(
    lab: Annotated[str | None, typer.Argument(help="default: every lab that has a tests/mutations.toml")] = None,
    only: Annotated[str, typer.Option(metavar="TEXT", help="entries in which this text occurs, in any field")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="so many mutants at once")] = 1,
) -> None:
    """Break each line of tests/mutations.toml in a copy of the checkout; exits 1 when no test notices.

    On servers of its own, on free ports: nothing that runs is disturbed, and no run is recorded. Half an hour a lab.
    """
    chosen = [labs.find(lab)] if lab else [one for one in labs.labs() if listing(one.folder).exists()]
    wanted = {one: [it for it in read(one.folder) if only in _words(it)] for one in chosen}
    if not any(wanted.values()):
        raise ConfigurationError(f"no mutation is written down{f' in which {only!r} occurs' if only else ''}.")
    with tempfile.TemporaryDirectory(prefix="lab-mutate-") as folder:
        Path(folder).chmod(0o755)  # servers that refuse root must reach their data
        trials = [it for one, found in wanted.items() if found for it in _try(one, found, Path(folder), jobs)]
    _conclude(trials)


def _try(lab: labs.Lab, mutations: Sequence[Mutation], folder: Path, jobs: int) -> list[Trial]:
    console.print(f"[bold]{lab.name}[/bold]: {len(mutations)} mutations")
    with _servers(lab, folder) as environment:
        bench = Bench(ROOT, folder, environment)
        possible = [it for it in mutations if not oddity(lab.folder, it)]
        if possible:
            bench.require_green(lab.folder, dict.fromkeys(test for it in possible for test in it.tests))
        return bench.try_all(lab.folder, mutations, _tell, jobs)


@contextmanager
def _servers(lab: labs.Lab, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of pytest, in which the lab's servers are found running: started once, and not for each mutant.

    With a home and ports of their own. A mutant may do to them what it likes, and what it records is gone with them.
    """
    Settings.load()  # takes `.env` into the environment
    roles = [(server.name, role) for server in SERVERS.values() for role in server.ports]
    ports = native.free_ports({_port(*role): 0 for role in roles})
    home = {"LAB_HOME": str(folder / "home"), "LAB_PROVIDER": "native"}
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}, **home}
    with Stack(Settings.load(environment), tell=console.print).borrowed(lab.servers):
        yield environment


def _port(server: str, role: str) -> str:
    name = server if role == "client" else f"{server}_{role}"
    return f"LAB_{name}_PORT".upper().replace("-", "_")


def _tell(trial: Trial) -> None:
    mark = f"[green]{TICK}[/green]" if trial.verdict is Verdict.KILLED else f"[bold red]{CROSS}[/bold red]"
    why = f" [dim]({escape(trial.reason)})[/dim]" if trial.reason else ""
    what = f"{trial.mutation.file}: {trial.mutation.breaks}"
    console.print(f"  {mark} {trial.verdict:<8} {trial.seconds:5.1f} s  {escape(what)}{why}")


def _conclude(trials: Sequence[Trial]) -> None:
    counts = Counter(trial.verdict for trial in trials)
    console.print(f"\n{', '.join(f'{counts[verdict]} {verdict}' for verdict in Verdict)}")
    left = [trial for trial in trials if trial.verdict is not Verdict.KILLED]
    for trial in left:
        it = trial.mutation
        console.print(f"{trial.verdict}: {escape(f'{it.file}: {it.text!r} -> {it.mutant!r}. {it.breaks}')}")
    if left:
        raise typer.Exit(1)


def _words(mutation: Mutation) -> str:
    return "\n".join((mutation.file, mutation.text, mutation.mutant, mutation.breaks, *mutation.tests))
