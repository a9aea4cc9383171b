"""Around the relays that 02 kills: several services, days whose partitions are made too late, and the clean-up."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from psycopg import sql

from outbox.operating.partitions import create_day, drop_published
from outbox.relay.polling import PollingPublisher
from outbox.stage.processes import Shop, make_relay, serve
from outbox.table import insert_event, pending
from shared import kafka
from shared.postgres import Connection, connect
from shared.run import Run
from shared.wait import until
from shared.worker import Worker

DAY_OF = "select relname from outbox join pg_class on pg_class.oid = outbox.tableoid where id = %s"
PATIENT = timedelta(minutes=1)  # of a clean-up that waits for the transactions of a busy machine


def services(run: Run, shop: Shop, count: int) -> list[Worker]:
    """Several services at work, each with its own orders."""
    return [_service(run, shop, number) for number in range(count)]


def _service(run: Run, shop: Shop, number: int) -> Worker:
    own = replace(shop, seed=run.seed + number, prefix=f"order{number}")
    return run.worker(f"service-{number}", serve, own, "outbox", 0, None, f"service-{number}")


def waiting(shop: Shop) -> int:
    """Events that are not marked as published."""
    with connect(shop.conninfo) as connection:
        return pending(connection)


def wait_until_published(shop: Shop) -> None:
    with connect(shop.conninfo) as connection:
        until("every event to be marked as published", lambda: pending(connection) == 0)


def stored(shop: Shop) -> dict[bytes, bytes]:
    """Event id -> payload, as the table has it."""
    with connect(shop.conninfo) as connection:
        return {str(row[0]).encode(): bytes(row[1]) for row in connection.execute("select id, payload from outbox")}


def published(shop: Shop) -> dict[bytes, bytes | None]:
    """Event id -> payload, as the topic has it."""
    return {kafka.headers(m)["ce_id"]: kafka.value(m) for m in kafka.read_all(shop.broker, shop.topic)}


def make_days_late(shop: Shop) -> int:
    """The partitions of the days that rows in the default are of; returns how many rows moved there."""
    with connect(shop.conninfo) as connection:
        days = connection.execute("select distinct (created_at at time zone 'utc')::date from outbox_default")
        names = [create_day(connection, day, PATIENT) for (day,) in days.fetchall()]
        return sum(_rows_of(connection, name) for name in names)


@dataclass(frozen=True)
class CleanUp:
    """The clean-up tried twice: while one event of a day waits, and when it is published."""

    day: str  # the name of its partition
    before: int  # rows in the outbox
    early: list[str]  # partitions dropped while it waited
    published: int  # events, by the relay's step
    late: list[str]  # partitions dropped after that
    left: int  # rows in the outbox at the end


def clean_up(shop: Shop) -> CleanUp:
    """All is published; one event more is not, and keeps its day."""
    with connect(shop.conninfo) as connection:
        last = next(replace(shop, count=1, prefix="late").events())
        insert_event(connection, last, shop.topic)
        make_days_late(shop)
        (day,) = connection.execute(DAY_OF, [last.id]).fetchone() or ("",)
        before, end = _rows_of(connection, "outbox"), datetime.now(UTC).date() + timedelta(days=1)
        early = drop_published(connection, end, patience=PATIENT)
        one_more = make_relay(shop, PollingPublisher, connection).step()
        late = drop_published(connection, end, patience=PATIENT)
        return CleanUp(day, before, early, one_more, late, _rows_of(connection, "outbox"))


def _rows_of(connection: Connection, table: str) -> int:
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0
