"""Events that a projection cannot handle, one for each way to be bad, and the program that can: the next release's."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.experiment import Run
from shared.postgres import Connection, connect, number
from sourcing import parking
from sourcing.event import Data, NewEvent, Recorded, data_of
from sourcing.postgres import PostgresStore, create
from sourcing.projection import ProjectionStopped, Projector, install
from sourcing.stage import lives, truth
from sourcing.stage.traffic import SUMMARY, changes, wrong_rows

# Stream -> the event that is bad, between two good ones.
BAD = {
    "order-unknown-type": NewEvent("OrderGiftWrapped", {"paper": "blue"}),
    "order-missing-field": NewEvent("LineAdded", {"product": "tea", "quantity": 2}),
    "order-not-a-number": NewEvent("LineAdded", {"product": "tea", "quantity": 2, "cents": "a lot"}),
    "order-too-large": NewEvent("LineAdded", {"product": "tea", "quantity": 2, "cents": 2**63}),
    "order-null-character": NewEvent("LineAdded", {"product": "tea\0", "quantity": 2, "cents": 250}),
    "order-not-json": NewEvent("LineAdded", {}),
    "order-latin-1": NewEvent("LineAdded", {}),
    "order-half-a-character": NewEvent("LineAdded", {}),
    "order-deep": NewEvent("LineAdded", {}),
}
# Stream -> the bytes that another program wrote: ours would have refused them.
BYTES = {
    "order-not-json": b'{"product": ',
    "order-latin-1": b'{"product":"caf\xe9","quantity":2,"cents":250}',
    "order-half-a-character": b'{"product":"\\ud83d","quantity":2,"cents":250}',
    "order-deep": b'{"product":"tea","quantity":2,"cents":250,"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}
# What the reason says, in part.
REASONS = {
    "order-unknown-type": "does not know it",
    "order-missing-field": "missing required field `cents`",
    "order-not-a-number": "Expected `int`, got `str`",
    "order-too-large": "out of range",
    "order-null-character": "unsupported Unicode",
    "order-not-json": "not a JSON object",
    "order-latin-1": "can't decode byte",
    "order-half-a-character": "surrogate",
    "order-deep": "nested more than",
}
MENDED = "LineAdded", {"product": "tea", "quantity": 2, "cents": 250}


def write(connection: Connection, streams: Iterable[str] = tuple(BAD)) -> None:
    """For each kind of bad event: an order that is placed, the bad event, and a line on top of it."""
    store = PostgresStore(connection)
    for stream in streams:
        bad = BAD[stream]
        line = NewEvent("LineAdded", {"product": "cup", "quantity": 1, "cents": 400})
        store.append(stream, [NewEvent("OrderPlaced", {"customer": "somebody"}), bad, line])
    for stream, data in BYTES.items():
        connection.execute("update events set data = %s where stream = %s and version = 2", [data, stream])


def mended(event: Recorded) -> Iterable[tuple[str, Data]]:
    """A reader that makes an ordinary line of every bad event, and nothing of the one that it needs not know."""
    if event.stream not in BAD or event.version != 2:
        return ((event.type, data_of(event)),)
    return () if event.type == "OrderGiftWrapped" else (MENDED,)


@dataclass(frozen=True)
class SpoiltLog:
    """A store in which bad events lie among good ones, and an empty read model of its orders."""

    conninfo: str
    connection: Connection


@contextmanager
def open_log(run: Run) -> Iterator[SpoiltLog]:
    create(conninfo := run.schema("_bad"))
    with connect(conninfo) as connection:
        lives.write(connection, run.seed, 10, "before")
        write(connection)
        lives.write(connection, run.seed, 10, "after")
        install(connection, SUMMARY)
        yield SpoiltLog(conninfo, connection)


def stopped(log: SpoiltLog, projector: Projector) -> tuple[str, int]:
    """What a projector says that stops at a bad event, and how many events before that one it did not take."""
    try:
        projector.catch_up()
    except ProjectionStopped as error:
        query = "select count(*) from events where (xid, position) < (%s::bigint::text::xid8, %s)"
        return str(error), number(log.connection, query, *error.event.place) - changes(log.connection)
    return "", 0


def parked(log: SpoiltLog) -> tuple[dict[str, str], int, int]:
    """Stream -> the reason of its bad event; good events parked behind these; rows of other orders that are wrong."""
    found = parking.parked(log.connection, SUMMARY.name)
    reasons = {one.stream: one.reason for one in found if one.version == 2}
    return reasons, len(found) - len(reasons), wrong_rows(log.connection, but=BAD)


def left(log: SpoiltLog) -> int:
    """Events that are still parked."""
    return len(parking.parked(log.connection))


def rows(log: SpoiltLog) -> truth.Content:
    return truth.read(log.connection, SUMMARY.name)


def differ(one: truth.Content, other: truth.Content) -> int:
    """How many rows do."""
    return truth.wrong(one, other)
