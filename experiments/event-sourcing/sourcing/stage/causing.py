"""Cause and effect in two streams: what readers get first. Step by step, and counted where many have written.

T100 has written something. T101 commits a cause. T100 reads it, appends what follows from it, and commits.
"""

from collections.abc import Mapping, Sequence

from shared.experiment import Run
from shared.history import History
from shared.postgres import Connection, connect
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.stage.reading import PAIR, WINDOWS, Reader

TOPICS = ["I.2/event-store-requirements/ordering-guarantees"]
NOTE = "insert into notes values ('this draws the xid')"
CAUSE, EFFECT = NewEvent("Requested", {}), NewEvent("Granted", {})
CAUSES = """
select id::text, convert_from(metadata, 'utf8')::jsonb->>'causation_id' from events
where convert_from(metadata, 'utf8')::jsonb->>'causation_id' is not null
"""
Order = dict[str, list[str]]  # the types of the events, by the way of the reader


def relate(conninfo: str, *, by_itself: bool) -> Order:
    """What readers get that read before the effect is appended, and again when all is committed.

    It is appended in the transaction that is older than its cause, or else `by_itself`, while that one is still open.
    """
    read: Order = {PAIR: [], WINDOWS: []}
    with connect(conninfo) as reading, connect(conninfo) as older, connect(conninfo) as newer:
        readers = [_reader(reading, way, types) for way, types in read.items()]
        with older.transaction():
            older.execute(NOTE)
            PostgresStore(newer).append("request-1", [CAUSE])
            for reader in readers:
                reader.step()
            writer = PostgresStore(newer if by_itself else older)
            if [event.type for event in writer.read("request-1")] == [CAUSE.type]:
                writer.append("grant-1", [EFFECT])
        for reader in readers:
            reader.finish()
    return read


def causes(connection: Connection) -> Mapping[str, str]:
    """Of each event that says so, the id of the one that it follows from."""
    return dict(connection.execute(CAUSES).fetchall())


def too_early(history: History, causes: Mapping[str, str]) -> int:
    """How many events were delivered before the one that they follow from, or without it."""
    place = {op.value: number for number, op in enumerate(history.delivered)}
    return sum(place[effect] < place.get(cause, len(place)) for effect, cause in causes.items() if effect in place)


def claim(run: Run, steps: Order, alone: Order, many: Mapping[str, int], effects: int) -> None:
    """`steps` and `alone`: what `relate` gave. `many`: by way, how many of the `effects` came too early."""
    right, among = [CAUSE.type, EFFECT.type], "among all writers {} of {:,} effects before their causes"
    run.about(PAIR, topics=TOPICS).claim(
        "what (xid, position) does not promise: an event that is appended in a longer transaction may be read before"
        " its cause, an event of another stream",
        steps[PAIR] == right[::-1],
        fact=f"read as {_listed(steps[PAIR])}; {among.format(many[PAIR], effects)}",
    )
    run.about(PAIR, topics=TOPICS).claim(
        "an append that is a transaction by itself is not: its xid is drawn when its cause is committed",
        alone[PAIR] == right,
        fact=f"read as {_listed(alone[PAIR])}, beside the same long transaction",
    )
    run.about(WINDOWS, topics=TOPICS).claim(
        "by snapshot windows the cause comes first, in the same run",
        steps[WINDOWS] == alone[WINDOWS] == right and many[WINDOWS] == 0 < effects,
        fact=f"read as {_listed(steps[WINDOWS])}; {among.format(many[WINDOWS], effects)}",
    )


def _reader(connection: Connection, way: str, types: list[str]) -> Reader:
    return Reader(connection, way, lambda event: types.append(event.type))


def _listed(types: Sequence[str]) -> str:
    return ", ".join(types) or "nothing"
