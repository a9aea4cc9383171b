"""lab sourcing lag | parked | retry | rebuild | adopt: what an operator does about projections, and after a restore."""

from typing import Annotated

import typer

from shared import home, operator
from shared.errors import ConfigurationError
from shared.operator import TIME, Dsn, console
from shared.postgres import Connection
from sourcing import checkpoint, parking
from sourcing.postgres import COMMAND, TABLE
from sourcing.projection import Policy, Projection, Projector
from sourcing.rebuild import rebuild as build_anew
from sourcing.shop.read_models import PROJECTIONS

cli = typer.Typer(no_args_is_help=True)
Schema = Annotated[str, typer.Option(help="the schema of the event store", envvar="LAB_SOURCING_SCHEMA")]
Name = Annotated[str, typer.Argument(metavar="PROJECTION")]
Streams = Annotated[list[str] | None, typer.Argument(metavar="[STREAM]...")]
Everything = Annotated[bool, typer.Option("--all", help="every stream that has something parked")]
Stop = Annotated[bool, typer.Option("--stop", help="stop at an event that cannot be handled, instead of parking it")]


@cli.command()
def lag(schema: Schema = "public", dsn: Dsn = None) -> None:
    """How far every projection is behind, in events and in seconds, and how much it has parked."""
    with _open(schema, dsn) as connection:
        found = checkpoint.lag(connection)
    table = operator.table("projection", "version", "events behind", "seconds behind", "parked")
    for one in found:
        operator.add(
            table, one.projection, str(one.version), f"{one.events:,}", f"{one.seconds:.1f}", f"{one.parked:,}"
        )
    console.print(table if found else "no projection ever ran here")


@cli.command()
def parked(schema: Schema = "public", dsn: Dsn = None) -> None:
    """What is parked, with the reason, in the order of the events."""
    with _open(schema, dsn) as connection:
        found = parking.parked(connection)
    table = operator.table("projection", "stream", "version", "type", "bytes", "attempts", "parked at", "reason")
    for one in found:
        at, size = f"{one.parked_at:{TIME}}", f"{one.size:,}"
        operator.add(
            table, one.projection, one.stream, str(one.version), one.type, size, str(one.attempts), at, one.reason
        )
    console.print(table if found else "nothing is parked")


@cli.command()
def retry(
    name: Name, streams: Streams = None, everything: Everything = False, schema: Schema = "public", dsn: Dsn = None
) -> None:
    """Handle what is parked again, each stream in its order: do it when the cause is gone."""
    projection = _projection(name)
    with _open(schema, dsn) as connection:
        there = parking.held(connection, name)
        chosen = operator.chosen(streams, everything, there, "stream", "lab sourcing parked")
        console.print(f"{Projector(connection, projection).retry(chosen)} handled")
        left = [one for one in parking.parked(connection, name) if one.stream in chosen]
    if left:
        console.print(f"{len(left)} still parked: {'; '.join(f'{one.stream} {one.reason}' for one in left)}")


@cli.command()
def rebuild(name: Name, schema: Schema = "public", dsn: Dsn = None, stop: Stop = False) -> None:
    """Build a read model anew from the first event, beside the one that is read, and switch."""
    projection = _projection(name)
    _open(schema, dsn).close()
    with console.status(f"building {name}") as status:
        built = build_anew(
            operator.address(schema, dsn),
            projection,
            policy=Policy.STOP if stop else Policy.PARK,
            progress=lambda events: status.update(f"building {name}: {events:,} events"),
            waiting=lambda attempts: status.update(f"building {name}: waits for its readers, to switch"),
        )
    attempts = "" if built.attempts == 1 else f", switched at attempt {built.attempts}"
    console.print(f"{name} rebuilt from {built.events:,} events, {built.parked:,} parked{attempts}")


@cli.command()
def adopt(schema: Schema = "public", dsn: Dsn = None) -> None:
    """After a restore into another cluster: what is there stays in its order, and what is written comes after it."""
    with operator.connected(schema, dsn, "is no event store", "events") as connection:
        console.print(str(home.adopt(connection, TABLE, COMMAND)))


def _open(schema: str, dsn: str | None) -> Connection:
    return operator.connected(schema, dsn, "are no projections", "events", "checkpoints")


def _projection(name: str) -> Projection:
    if name not in PROJECTIONS:
        raise ConfigurationError(f"there is no projection {name!r}; there are: {', '.join(PROJECTIONS)}")
    return PROJECTIONS[name]
