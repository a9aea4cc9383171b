"""Looking at order_summary while projectors are at work on it."""

import time
from collections.abc import Collection
from pathlib import Path

from shared.errors import DeadlineExceeded
from shared.postgres import Connection
from shared.wait import until
from sourcing import checkpoint
from sourcing.audit import everything
from sourcing.postgres import PostgresStore
from sourcing.projection import Projection, Projector
from sourcing.shop.order import Order
from sourcing.stage import folded
from sourcing.store import NO_STREAM
from sourcing.wrong.emptied import start_again
from sourcing.wrong.projectors import PerEvent

MODEL = "order_summary"
PATIENCE = 30.0  # seconds for a write to come into the read model
MEASURED = 500  # batches of a rate


def changes(connection: Connection) -> int:
    """How many events the read model counts."""
    return _number(connection, "select coalesce(sum(changes), 0)::bigint from order_summary")


def written(connection: Connection) -> int:
    """How many events there are."""
    return _number(connection, "select count(*) from events")


def behind(connection: Connection) -> int:
    """How many of them its checkpoint has not passed."""
    return next(one.events for one in checkpoint.lag(connection) if one.projection == MODEL)


def wrong_rows(connection: Connection, but: Collection[str] = ()) -> int:
    """How many of its rows are not what a fold of all events says, but for these streams."""
    events = everything(PostgresStore(connection))
    expected = folded.fold(event for event in events if event.stream not in but)[MODEL]
    found = {stream: row for stream, row in folded.read(connection, MODEL).items() if stream not in but}
    return folded.wrong(expected, found)


def write_and_look(connection: Connection, number: int) -> tuple[bool, bool, float]:
    """Place an order: is it in the read model at once, is it there when the checkpoint says so, after how many ms?"""
    order = Order(f"own{number}")
    order.place("me")
    PostgresStore(connection).append(order.stream, order.uncommitted, NO_STREAM)
    began = time.perf_counter()
    at_once = _is_there(connection, order.stream)
    while not checkpoint.includes(connection, MODEL, order.stream, 1):  # without a pause, since it is measured
        if time.perf_counter() - began > PATIENCE:
            raise DeadlineExceeded(f"{MODEL} did not take in {order.stream} within {PATIENCE:g} s")
    waited = (time.perf_counter() - began) * 1000
    return at_once, _is_there(connection, order.stream), waited


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


def empty_and_fill(connection: Connection, projection: Projection, seen: Path, batch: int = 500) -> None:
    """WRONG: start again before a reader's eyes. It looks at the empty tables, and at what the first batch makes.

    `seen` is the file of its process (projecting.watch). Nobody else may project meanwhile.
    """
    start_again(connection, projection)
    await_looks(seen)
    Projector(connection, projection, batch=batch).step()
    await_looks(seen)


def await_looks(seen: Path) -> None:
    """Until a look has begun and ended that began after now: the one under way may have begun before."""
    for _ in range(2):
        last = seen.stat().st_mtime_ns
        until("the reader to look again", lambda: seen.stat().st_mtime_ns > last)  # noqa: B023


def _is_there(connection: Connection, stream: str) -> bool:
    return connection.execute("select from order_summary where order_id = %s", [stream]).fetchone() is not None


def _number(connection: Connection, query: str) -> int:
    return int((connection.execute(query).fetchone() or [0])[0])
