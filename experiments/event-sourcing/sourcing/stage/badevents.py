"""Events that a projection cannot handle, one for each way to be bad, and the program that can: the next release's."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.postgres import Connection
from sourcing import parking
from sourcing.event import Data, NewEvent, Recorded, data_of
from sourcing.postgres import PostgresStore
from sourcing.projection import Policy, Projection, ProjectionStopped, Projector
from sourcing.rebuild import rebuild
from sourcing.stage import folded
from sourcing.stage.watching import changes, wrong_rows

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
class Outcome:
    """What became of bad events among good ones."""

    parked: dict[str, str]  # stream -> reason of its first parked event
    behind: int  # good events parked behind a bad one
    wrong: int  # rows of other orders that are not what they should be
    stopped: str  # what the projector said that stops at a bad event
    missed: int  # events before that one that it did not take
    handled: int  # events that the next release's retry took
    left: int  # events still parked after it
    differ: int  # rows that a rebuild by the next release makes otherwise than the retry


def project(conninfo: str, connection: Connection, projection: Projection) -> Outcome:
    """Stop at the first bad event; go on and park; then, with the program mended, retry, and rebuild to compare."""
    stopped, missed = _stop(connection, projection)
    Projector(connection, projection).catch_up()
    found = parking.parked(connection, projection.name)
    wrong = wrong_rows(connection, but=BAD)
    handled = Projector(connection, projection, read=mended).retry()
    left, rows = len(parking.parked(connection)), folded.read(connection, projection.name)
    rebuild(conninfo, projection, mended)
    differ = folded.wrong(rows, folded.read(connection, projection.name))
    reasons = {one.stream: one.reason for one in found if one.version == 2}
    return Outcome(reasons, len(found) - len(reasons), wrong, stopped, missed, handled, left, differ)


def _stop(connection: Connection, projection: Projection) -> tuple[str, int]:
    projector = Projector(connection, projection, policy=Policy.STOP)
    try:
        projector.catch_up()
    except ProjectionStopped as error:
        query = "select count(*) from events where (xid, position) < (%s::bigint::text::xid8, %s)"
        before = connection.execute(query, error.event.place).fetchone() or (0,)
        return str(error), before[0] - changes(connection)
    return "", 0
