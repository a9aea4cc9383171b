"""The tables, and the two inserts. The schema itself is in schema.sql, to be copied."""

from datetime import UTC
from pathlib import Path
from uuid import UUID

from shared import home
from shared.errors import EventError
from shared.event import JSON, Event
from shared.postgres import Connection, connect, number

SCHEMA = Path(__file__).with_name("schema.sql")
TABLE, COMMAND = "outbox", "lab outbox"  # see shared/home.sql

INSERT_STEP = "insert into order_steps (order_id, number, status, cents) values (%s, %s, %s, %s)"
INSERT_EVENT = """
insert into outbox (aggregate_type, aggregate_id, payload, id, type, source, sequence, time,
                    correlation_id, causation_id, content_type)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


def create(conninfo: str) -> None:
    """Create the tables in the first schema of the connection's search path."""
    with connect(conninfo) as connection:
        connection.execute(SCHEMA.read_text() + home.script(TABLE, COMMAND))
        connection.execute("select pg_stat_force_next_flush()")  # making indexes is scanning, see `scans`


def insert_step(connection: Connection, event: Event) -> None:
    """The business row. Raises psycopg.IntegrityError for a step that was taken before, or that costs nothing."""
    connection.execute(INSERT_STEP, step_values(event))


def insert_event(connection: Connection, event: Event, aggregate_type: str) -> None:
    """The outbox row. Call it in the transaction of the business row, or it is worth nothing. Raises EventError."""
    connection.execute(INSERT_EVENT, outbox_values(event, aggregate_type))


def step_values(event: Event) -> tuple[object, ...]:
    """The values of INSERT_STEP."""
    return event.subject, event.sequence, event.type.rpartition(".")[2], event.data["cents"]


def outbox_values(event: Event, aggregate_type: str) -> tuple[object, ...]:
    """The values of INSERT_EVENT. Raises EventError for what would be parked, or published as another event."""
    if problems := _misfits(event, aggregate_type):
        raise EventError({name: [problem] for name, problem in problems.items()})
    if not _is_usual(event):
        event.to_cloudevent()
    try:
        time = event.time.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    except OverflowError as error:
        raise EventError({"time": [f"{event.time} is out of range in UTC"]}) from error
    order = event.id, event.type, event.source, event.sequence, time, event.correlation_id, event.causation_id
    return aggregate_type, event.subject, event.payload(), *order, event.datacontenttype


def _is_usual(event: Event) -> bool:
    """Whether its attributes are what almost all are: there, of characters that print, and numbered, if at all."""
    words = event.type, event.source, event.subject, event.correlation_id, event.causation_id
    return (
        bool(event.type and event.source and event.time.tzinfo)
        and "".join(words).isprintable()
        and 0 <= event.sequence < 2**63
        and event.datacontenttype == JSON
    )


def _misfits(event: Event, aggregate_type: str) -> dict[str, str]:
    """What an event may have, and a row of the outbox has no place for."""
    found = {}
    if not aggregate_type or "\0" in aggregate_type:
        found["aggregate_type"] = f"says the topic, and cannot be {aggregate_type!r}"
    if not event.subject:
        found["subject"] = "is missing: it is the key, by which an aggregate's events stay in order"
    if event.partition_key not in ("", event.subject):
        found["partitionkey"] = "is not the subject, which is the key here"
    if event.dataschema:
        found["dataschema"] = "has no column"
    try:
        UUID(event.id)
    except ValueError:
        found["id"] = f"{event.id!r} is no UUID"
    return found


def steps(conninfo: str) -> set[tuple[str, int]]:
    """Every business row, as (order id, number): the source of truth."""
    with connect(conninfo) as connection:
        return {(order, number) for order, number in connection.execute("select order_id, number from order_steps")}


def pending(connection: Connection) -> int:
    """How many events are not marked as published."""
    return number(connection, "select count(*) from outbox where published_at is null")
