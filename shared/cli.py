"""The `lab` command. Its parts are in shared/commands; a lab's own commands are mounted from `<package>/cli.py`."""

import importlib
import importlib.util

import psycopg
import typer

from shared import ending
from shared.commands import house, mutate, runs, servers
from shared.errors import LabError
from shared.labs import labs

HELP = """Event-driven architecture labs: experiments against real servers.

\b
  lab demo                       the tour: flagship experiments, a table of claims, the result page
  lab list                       labs, their questions, servers and last verdicts
  lab run outbox-pattern/01      one experiment; `lab run outbox-pattern` runs the whole lab
  lab up postgres kafka          keep servers running between runs; `lab down` stops them
  lab report                     the result page of all runs
  lab doctor                     what is missing on this machine, and how to get it

Your own servers are used where LAB_POSTGRES, LAB_KAFKA, ... name them (environment or .env): never started, killed
or paused, and nothing outside the labs' own names is touched.
"""

cli = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for part in (runs, servers, house, mutate):
    part.mount(cli)


def app() -> None:
    """Entry point: errors of the house are one sentence and exit 1; Ctrl-C, SIGTERM, a closed terminal are exit 130."""
    with ending.command("interrupted: what was started here is stopped"):
        _mount_labs()
        try:
            cli()
        except psycopg.Error as error:  # a lab's own command, whose database is not there, or no address of one
            if error.sqlstate and not isinstance(error, psycopg.OperationalError):
                raise
            raise LabError(f"postgres does not answer: {' '.join(str(error).split())}") from error


def _mount_labs() -> None:
    """`lab outbox ...` is the app that the package `outbox` declares in its cli module."""
    for lab in labs():
        if importlib.util.find_spec(f"{lab.package}.cli"):
            module = importlib.import_module(f"{lab.package}.cli")
            cli.add_typer(module.cli, name=lab.package, help=lab.question)
