"""The `lab` command. Its parts are in shared/commands; a lab's own commands are mounted from `<package>/cli.py`."""

import importlib
import importlib.util
import signal
import sys

import typer

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
    """Entry point: errors of the house are one sentence and exit 1, Ctrl-C is exit 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _mount_labs()
        cli()
    except KeyboardInterrupt:
        print("interrupted: what was started here is stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except SystemExit as end:
        if end.code == 130:  # typer has turned Ctrl-C into this
            print("interrupted: what was started here is stopped", file=sys.stderr)
        raise
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _mount_labs() -> None:
    """`lab outbox ...` is the app that the package `outbox` declares in its cli module."""
    for lab in labs():
        if importlib.util.find_spec(f"{lab.package}.cli"):
            module = importlib.import_module(f"{lab.package}.cli")
            cli.add_typer(module.cli, name=lab.package, help=lab.question)
