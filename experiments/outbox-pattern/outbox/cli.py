"""lab outbox parked | retry | discard | adopt | check | lag: what an operator does, and asks."""

from typing import Annotated

import typer

from outbox import parking
from outbox.operating import checking
from outbox.relay.lag import lags
from outbox.table import COMMAND, TABLE
from shared import home
from shared.errors import ConfigurationError
from shared.operator import TIME, Dsn, add, connected, console, table
from shared.postgres import Connection

cli = typer.Typer(no_args_is_help=True)
Schema = Annotated[str, typer.Option(help="the schema of the outbox", envvar="LAB_OUTBOX_SCHEMA")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[EVENT ID]...")]
Since = Annotated[int | None, typer.Option(metavar="DAYS", min=1, help="rows of the last days only; default: all")]
Everything = Annotated[bool, typer.Option("--all", help="every parked event")]


@cli.command()
def parked(schema: Schema = "public", dsn: Dsn = None) -> None:
    """What is parked, with the reason; oldest first."""
    with _open(schema, dsn) as connection:
        found = parking.parked(connection)
    rows = table("event id", "aggregate", "type", "bytes", "parked at", "reason")
    for one in found:
        aggregate = f"{one.aggregate_type} {one.aggregate_id}"
        add(rows, one.id, aggregate, one.type, f"{one.size:,}", f"{one.parked_at:{TIME}}", one.reason)
    console.print(rows if found else "nothing is parked")


@cli.command()
def retry(ids: Ids = None, everything: Everything = False, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Put parked events back into the outbox, under their ids: do it when the cause is gone."""
    with _open(schema, dsn) as connection:
        chosen = _chosen(connection, ids, everything)
        console.print(f"{parking.retry(connection, chosen)} put back into the outbox")
        # A guard (guard.sql) looks at them again as they are inserted.
        again = [one for one in parking.parked(connection) if one.id in chosen]
    if again:
        console.print(f"{len(again)} parked again: {'; '.join(f'{one.id} {one.reason}' for one in again)}")


@cli.command()
def discard(ids: Ids = None, everything: Everything = False, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Delete parked events for good."""
    with _open(schema, dsn) as connection:
        console.print(f"{parking.discard(connection, _chosen(connection, ids, everything))} discarded")


@cli.command()
def adopt(schema: Schema = "public", dsn: Dsn = None) -> None:
    """After a restore into another cluster: what is there stays in its order, and what is written comes after it."""
    with _open(schema, dsn) as connection:
        console.print(str(home.adopt(connection, TABLE, COMMAND)))


@cli.command()
def check(since: Since = None, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Whether the outbox's writers keep each aggregate's order; exits 1 when they do not.

    A relay publishes an aggregate's events in the order in which they were inserted. So whoever writes one must have
    the aggregate's lock before the insert: its position is drawn there. Compares the events' numbers with their
    positions, and looks at the table: xid before position, and positions drawn one by one. Reads, and changes nothing.
    """
    with _open(schema, dsn) as connection:
        found = checking.check(connection, since)
    for finding in found:
        console.print(f"{'WRONG' if finding.fault else 'note'}: {finding}", highlight=False, markup=False)
    if any(finding.fault for finding in found):
        raise typer.Exit(1)
    console.print("every numbered event lies behind those before it, and the table is as relays need it")


@cli.command()
def lag(schema: Schema = "public", dsn: Dsn = None) -> None:
    """How far each cursor relay is behind, by its last note; of the log's relays see pg_replication_slots."""
    with _open(schema, dsn) as connection:
        found = lags(connection)
    rows = table("relay", "waiting", "oldest (s)", "open transactions", "window")
    for one in found:
        window = "being read" if one.reading else "none is open"
        add(rows, one.relay, f"{one.waiting:,}", f"{one.oldest:.1f}", str(one.open), window)
    console.print(rows if found else "no cursor relay has a note here")


def _open(schema: str, dsn: str | None) -> Connection:
    return connected(schema, dsn, "is no outbox", "outbox_parked")


def _chosen(connection: Connection, ids: list[str] | None, everything: bool) -> list[str]:
    """The ids that were named, all of which must be parked. Raises ConfigurationError naming one that is not."""
    there = [one.id for one in parking.parked(connection)]
    if not ids and not everything:
        raise ConfigurationError("name event ids (see `lab outbox parked`), or say --all")
    for ident in ids or []:
        if ident not in there:
            raise ConfigurationError(f"no event {ident!r} is parked here (see `lab outbox parked`)")
    return ids or there
