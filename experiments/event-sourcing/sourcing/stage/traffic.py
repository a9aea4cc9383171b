"""The read model `order_summary` in use: orders come in, a projector takes them in, somebody looks on."""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.experiment import Run
from shared.postgres import Connection, connect, number
from shared.threads import paced
from shared.wait import until
from shared.worker import Worker, until_told
from sourcing import checkpoint
from sourcing.audit import everything
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projection, Projector, install
from sourcing.shop.order import Order
from sourcing.shop.read_models import PROJECTIONS, OrderSummary
from sourcing.stage import lives, truth
from sourcing.store import NO_STREAM
from sourcing.wrong.emptied import start_again
from sourcing.wrong.projectors import PerEvent

SUMMARY = OrderSummary()
PATIENCE = 30.0  # seconds for a batch to be there
RATE = 40.0  # orders per second that come in, an event per transaction
MEASURED = 500  # batches of a rate


@contextmanager
def open_log(run: Run) -> Iterator[tuple[str, Connection]]:
    """A store in a schema of its own."""
    create(conninfo := run.schema("_log"))
    with connect(conninfo) as connection:
        yield conninfo, connection


def fill(connection: Connection, seed: int, orders: int) -> int:
    """Orders of before, and empty read models; returns how many events there are."""
    events = lives.write(connection, seed, orders, "old")
    connection.execute("analyze events")
    install(connection, *PROJECTIONS.values())
    return events


def begin(run: Run, conninfo: str, connection: Connection) -> tuple[Worker, Worker]:
    """A projector follows and a writer writes; returns them when orders come into the read model."""
    projector = run.worker("projector", follow, conninfo, SUMMARY)
    writer = run.worker("writer", write_paced, conninfo, run.seed, RATE, "new")
    old = changes(connection)
    until("orders to come in, and into the read model", lambda: changes(connection) > old)
    return projector, writer


# What is there.


def changes(connection: Connection) -> int:
    """How many events the read model counts."""
    return number(connection, "select coalesce(sum(changes), 0)::bigint from order_summary")


def written(connection: Connection) -> int:
    """How many events there are."""
    return number(connection, "select count(*) from events")


def behind(connection: Connection) -> int:
    """How many of them its checkpoint has not passed."""
    return next(one.events for one in checkpoint.lag(connection) if one.projection == SUMMARY.name)


def wrong_rows(connection: Connection, but: Collection[str] = ()) -> int:
    """How many of its rows are not what a fold of all events says, but for these streams."""
    events = everything(PostgresStore(connection))
    expected = truth.fold(event for event in events if event.stream not in but)[SUMMARY.name]
    found = {stream: row for stream, row in truth.read(connection, SUMMARY.name).items() if stream not in but}
    return truth.wrong(expected, found)


def place_order(connection: Connection, number: int) -> str:
    """An order of one's own; returns its stream."""
    order = Order(f"own{number}")
    order.place("me")
    PostgresStore(connection).append(order.stream, order.uncommitted, NO_STREAM)
    return order.stream


def shows(connection: Connection, stream: str) -> bool:
    """Whether the read model has the order."""
    return connection.execute("select from order_summary where order_id = %s", [stream]).fetchone() is not None


def rate(connection: Connection, projection: Projection, size: int, events: int) -> float:
    """Events per second into the emptied read model, in transactions of `size`; of MEASURED batches at most.

    Raises DeadlineExceeded when there is nothing to take in any more, as behind a transaction that stays open.
    """
    start_again(connection, projection)
    kind, batch = (PerEvent, MEASURED) if size == 1 else (Projector, size)
    projector = kind(connection, projection, batch=min(batch, events))
    began, done = time.perf_counter(), 0
    while done < min(events, MEASURED * size):
        done += until("the next batch", projector.step, PATIENCE)
    return done / (time.perf_counter() - began)


def await_looks(seen: Path) -> None:
    """Until a look has begun and ended that began after now: the one under way may have begun before."""
    for _ in range(2):
        last = seen.stat().st_mtime_ns
        until("the reader to look again", lambda: seen.stat().st_mtime_ns > last)  # noqa: B023


# The processes.


def follow(conninfo: str, projection: Projection, batch: int = 500) -> None:
    """A process: keep the read model up to date until SIGTERM, then take in what is left."""
    stop = until_told()
    with connect(conninfo) as connection:
        projector = Projector(connection, projection, batch=batch)
        projector.run(stop)
        projector.catch_up()


def write_paced(conninfo: str, seed: int, rate: float, prefix: str) -> None:
    """A process: orders at a rate of so many each second, one event per transaction, until SIGTERM."""
    stop = until_told()
    with connect(conninfo) as connection:
        store = PostgresStore(connection)
        for stream, events in paced(lives.orders(seed, 1_000_000, prefix), rate, stop):
            for version, event in enumerate(events):
                store.append(stream, [event], version)


POLL = """
select coalesce(sum(changes), 0)::bigint, count(*), coalesce(max(tableoid::bigint), 0) from order_summary
"""


def watch(conninfo: str, result: Path) -> None:
    """A process: look at order_summary again and again until SIGTERM, as a reader who expects it to grow only.

    The file appears at the first look. At the end it holds {"polls", "tables": tables seen, "fell": polls that saw less
    than one before, "empty": those of them that saw nothing, "lowest": the least share of what was seen before}.
    """
    stop, most, polls, fell, empty, lowest = until_told(), 0, 0, 0, 0, 1.0
    tables: set[int] = set()
    with connect(conninfo) as connection:
        while True:
            last = stop.is_set()
            [(changes, rows, table)] = connection.execute(POLL, prepare=True).fetchall()
            polls += 1
            result.touch()
            if changes < most:
                fell, empty, lowest = fell + 1, empty + (rows == 0), min(lowest, changes / most)
            most = max(most, changes)
            tables |= {table} - {0}
            if last:
                break
            stop.wait(0.002)
    seen = {"polls": polls, "tables": len(tables), "fell": fell, "empty": empty, "lowest": lowest}
    result.write_text(json.dumps(seen))
