"""lab saga list | show | retry | skip | compensate | messages | resend | discard: what an operator does about sagas."""

from contextlib import closing
from typing import Annotated

import typer
from rich.markup import escape

from saga.orchestrator import operator
from saga.orchestrator.machine import Status, Verb
from saga.transport import Outlet
from shared.operator import TIME, Dsn, add, connected, console, table
from shared.postgres import Connection
from shared.servers.stack import Stack

cli = typer.Typer(no_args_is_help=True)
Schema = Annotated[str, typer.Option(help="the schema of the orchestrator", envvar="LAB_SAGA_SCHEMA")]
Id = Annotated[str, typer.Argument(metavar="SAGA")]
Ids = Annotated[list[str], typer.Argument(metavar="SAGA...")]
Numbers = Annotated[list[int], typer.Argument(metavar="NUMBER...", help="as `lab saga messages` lists them")]
Everything = Annotated[bool, typer.Option("--all", help="also those that have ended, and not only the first hundred")]
PARKED = "parked_messages"


@cli.command("list")
def list_(everything: Everything = False, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Sagas that wait for an operator, then those that run; each oldest first."""
    chosen = tuple(Status) if everything else (Status.PARKED, Status.COMPENSATING, Status.RUNNING)
    with _open(schema, dsn) as connection:
        found = operator.sagas(connection, chosen, None if everything else 100)
        more = 0 if everything else operator.count(connection, chosen) - len(found)
        aside = len(operator.put_aside(connection))
    rows = table("saga", "definition", "status", "asks for", "attempt", "begun", "reason")
    for one in found:
        asked = one.asked.rpartition(" ")[2]
        begun = f"{one.started_at:{TIME}}"
        add(rows, one.id, one.definition, one.status, asked, str(one.attempt), begun, one.reason)
    console.print(rows if found else "no saga runs or waits")
    if more > 0:  # below 0 where some have ended in between
        console.print(f"{more} more (--all shows them)")
    if aside:
        console.print(f"{aside} messages put aside (see `lab saga messages`)")


@cli.command()
def show(saga: Id, schema: Schema = "public", dsn: Dsn = None) -> None:
    """What happened to one saga, and when."""
    with _open(schema, dsn) as connection:
        lines = operator.history(connection, saga)
    if not lines:
        raise operator.NoSuchSaga(f"there is no saga {saga!r}")
    rows = table("at", "what happened")
    for line in lines:
        add(rows, f"{line.at:{TIME}.%f}"[:-3], line.note)
    console.print(rows)


@cli.command()
def messages(schema: Schema = "public", dsn: Dsn = None) -> None:
    """Messages that could not be used, whole in the table parked_messages, oldest first. A service has its own."""
    with _open(schema, dsn, PARKED) as connection:
        found = operator.put_aside(connection)
    rows = table("number", "topic", "partition", "offset", "bytes", "at", "reason")
    for one in found:
        size = f"{len(one.value or b''):,}"
        place = str(one.number), one.topic, str(one.partition), str(one.offset)
        add(rows, *place, size, f"{one.parked_at:{TIME}}", one.reason)
    console.print(rows if found else "nothing was put aside")


@cli.command()
def retry(sagas: Ids, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Ask again for what a parked saga could not get: do it when the cause is gone."""
    _tell(sagas, Verb.RETRY, schema, dsn)


@cli.command()
def skip(sagas: Ids, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Take what a parked saga could not get as done: do it when it was done by hand."""
    _tell(sagas, Verb.SKIP, schema, dsn)


@cli.command()
def compensate(sagas: Ids, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Undo a saga that runs, or that was parked on its way."""
    _tell(sagas, Verb.COMPENSATE, schema, dsn)


@cli.command()
def resend(numbers: Numbers, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Put messages that were put aside into their topics again, as they came: do it when they can be used by now."""
    with _open(schema, dsn, PARKED) as connection, closing(Outlet(Stack().endpoint("kafka"))) as outlet:
        for number in numbers:
            operator.resend(connection, outlet, number)
            console.print(f"{number}: sent again")


@cli.command()
def discard(numbers: Numbers, schema: Schema = "public", dsn: Dsn = None) -> None:
    """Drop messages that were put aside, and that nobody needs."""
    with _open(schema, dsn, PARKED) as connection:
        for number in numbers:
            operator.discard(connection, number)
            console.print(f"{number}: gone")


def _tell(sagas: list[str], verb: Verb, schema: str, dsn: str | None) -> None:
    with _open(schema, dsn) as connection:
        for saga in sagas:
            console.print(f"{escape(saga)}: {operator.tell(connection, saga, verb)}")


def _open(schema: str, dsn: str | None, kept: str = "saga_log") -> Connection:
    """Raises ConfigurationError where the schema has no such table."""
    who = "orchestrator" if kept != PARKED else "orchestrator or service that puts messages aside"
    return connected(schema, dsn, f"is no {who}", kept)
