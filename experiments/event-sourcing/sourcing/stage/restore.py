"""The day of the disaster: the cluster is gone, a dump of its events is restored into a fresh one, and all goes on.

A fresh cluster's transaction ids begin at some hundreds. Source: sliceworkz/eventstore#143, where events that were
written after a migration came before, or never.
"""

from dataclasses import dataclass

from shared import home, moving
from shared.errors import NotAdopted
from shared.postgres import connect, create_schema, in_schema
from shared.servers.server import Endpoint
from sourcing.event import START, NewEvent, Position, Recorded
from sourcing.postgres import COMMAND, READ_ALL, TABLE, PostgresStore, create
from sourcing.store import NO_STREAM

ALL = 1_000_000  # more events than there are
BARE = READ_ALL.replace("events_xid", "")  # WRONG here: as if ids of transactions were good everywhere
NOTED = "Noted"


@dataclass(frozen=True)
class Restored:
    """What readers got: before the dump, after the restore, and after the adoption, when writers had gone on."""

    before: list[Recorded]
    bare: list[Recorded]  # by the query that compares with the cluster's own ids
    refusal: str  # what the store said before it was adopted
    after: list[Recorded]
    checkpoint: Position  # kept elsewhere, since before the dump
    rest: list[Recorded]  # what comes after it
    written: list[str]  # ids of what was appended after the adoption

    @property
    def refused(self) -> bool:
        """Whether the refusal names the command."""
        return f"run `{COMMAND} adopt` first" in self.refusal

    @property
    def whole(self) -> bool:
        """Whether all came in its order: history as it was, then what is new, and the rest from the checkpoint on."""
        known, new = self.after[: len(self.before)], self.after[len(self.before) :]
        middle = [event.place for event in self.before].index(self.checkpoint)
        return (known, self.rest) == (self.before, self.after[middle + 1 :]) and [e.id for e in new] == self.written


def move(source: Endpoint, target: Endpoint, schema: str, streams: int) -> Restored:
    """Write so many streams into one cluster, and go on in the other, with what a dump holds."""
    create(conninfo := create_schema(source, schema))
    with connect(conninfo) as connection, connect(target.url) as fresh:
        moving.age(connection, max(0, moving.newest_id(fresh) + 3_000 - moving.newest_id(connection)))
        store = PostgresStore(connection)
        for number in range(streams):
            store.append(f"account-{number}", [NewEvent(NOTED, {"number": number})] * 2, NO_STREAM)
        before = list(store.read_all(START, ALL))
    moving.restore(target, moving.dump(source, schema))
    return _go_on(in_schema(target.url, schema), before)


def _go_on(conninfo: str, before: list[Recorded]) -> Restored:
    checkpoint = before[len(before) // 2].place
    with connect(conninfo) as connection:
        refusal = _refusal(conninfo)
        rows = connection.cursor(binary=True, row_factory=lambda _: Recorded._make)
        bare = rows.execute(BARE, [*START, ALL]).fetchall()
        home.adopt(connection, TABLE, COMMAND)
        store, new = PostgresStore(connection), [NewEvent(NOTED, {"number": number}) for number in range(3)]
        store.append("account-new", [new[0]], NO_STREAM)
        store.append(before[0].stream, [new[1]], 2)
        store.append(before[-1].stream, [new[2]], 2)
        after, rest = list(store.read_all(START, ALL)), list(store.read_all(checkpoint, ALL))
    return Restored(before, bare, refusal, after, checkpoint, rest, [event.id for event in new])


def _refusal(conninfo: str) -> str:
    with connect(conninfo) as connection:
        try:
            PostgresStore(connection).append("account-lost", [NewEvent(NOTED, {})])
        except NotAdopted as error:
            return str(error)
    return ""
