"""The `lab` command. Each of its commands is a function below shared/commands; `lab outbox ...` is outbox/cli.py.

A module is imported when a command of it is called: `lab --help` and completion import none of them.
"""

import ast
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from shared import ending
from shared.errors import LabError
from shared.labs import Lab, labs

HELP = """Event-driven architecture labs: experiments against real servers.

\b
  lab demo                       the tour: one flagship experiment of each lab, and the result page
  lab list                       labs, their questions, servers and last verdicts
  lab run outbox-pattern/01      one experiment; `lab run outbox-pattern` runs the whole lab
  lab up postgres kafka          keep servers running between runs; `lab down` stops them
  lab report                     the result page of all runs
  lab doctor                     what is missing on this machine, and how to get it

Your own servers are used where LAB_POSTGRES, LAB_KAFKA, ... name them (environment or .env): never started, killed
or paused, and nothing outside the labs' own names is touched.
"""
PARTS = Path(__file__).with_name("commands")
COMMANDS = {  # command -> (module, function)
    "list": ("listing", "show_list"),
    "run": ("runs", "run"),
    "demo": ("demo", "demo"),
    "report": ("documents", "show_report"),
    "evidence": ("documents", "make_evidence"),
    "coverage": ("documents", "coverage"),
    "up": ("servers", "up"),
    "down": ("servers", "down"),
    "status": ("servers", "status"),
    "logs": ("servers", "logs"),
    "check": ("house", "check"),
    "doctor": ("house", "doctor"),
    "clean": ("house", "clean"),
    "mutate": ("mutate", "mutate"),
}


class Later(TyperCommand):
    """A command that is made when it is called. Until then it has a name, and the help that the list shows."""

    def __init__(self, name: str, text: str, make: Callable[[], Any]) -> None:
        super().__init__(name, help=text, rich_markup_mode=None)
        self.make = make

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.make().make_context(info_name, args, parent, **extra)


class Commands(TyperGroup):
    """All that `lab` can do."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (module, function) in COMMANDS.items():
            text = _docstring(PARTS / f"{module}.py", function)
            self.add_command(Later(name, text, partial(_made, name, module, function)))
        for lab in labs():
            if (lab.folder / lab.package / "cli.py").exists():
                self.add_command(Later(lab.package, lab.question, partial(_made_by, lab)))


cli = typer.Typer(cls=Commands, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
cli.callback()(lambda: None)


def app() -> None:
    """Entry point: errors of the house are one sentence and exit 1; Ctrl-C, SIGTERM, a closed terminal are exit 130."""
    with ending.command("interrupted: what was started here is stopped"):
        try:
            cli()
        except Exception as error:
            if sentence := _away(error):
                raise LabError(sentence) from error
            raise


def _docstring(path: Path, function: str) -> str:
    """Read, and not imported."""
    nodes = ast.parse(path.read_bytes()).body
    [found] = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function]
    return ast.get_docstring(found) or ""


def _made(name: str, module: str, function: str) -> Any:
    one = _plain_typer()
    one.command(name)(getattr(import_module(f"shared.commands.{module}"), function))
    return get_group(one).commands[name]


def _made_by(lab: Lab) -> Any:
    """What the lab's package declares in its cli module."""
    one = _plain_typer()
    one.add_typer(import_module(f"{lab.package}.cli").cli, name=lab.package, help=lab.question)
    return get_group(one).commands[lab.package]


def _plain_typer() -> typer.Typer:
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


def _away(error: Exception) -> str | None:
    """The sentence for a lab's own command whose database is not there, or no address of one; None for all else."""
    if "psycopg" not in sys.modules:
        return None
    import psycopg  # whoever has raised its error has imported it

    server_spoke = isinstance(error, psycopg.Error) and error.sqlstate
    if not isinstance(error, psycopg.Error) or (server_spoke and not isinstance(error, psycopg.OperationalError)):
        return None
    return f"postgres does not answer: {' '.join(str(error).split())}"
