"""The cursor relay: read on by snapshot windows from where the last one ended; mark nothing, delete nothing.

How it reads, and why nothing is missed or out of order, is in reading.py. What is written down is one row: the window
and the place in it. Killed anywhere, the next relay goes on in that window; what comes twice is of that window, and of
what was read since the last note.
"""

import threading
from dataclasses import dataclass

from confluent_kafka import KafkaException

from outbox.parking import park
from outbox.relay.holding import PATIENCE, hold, let_go
from outbox.relay.publisher import Publisher, attempt, few_collections
from outbox.relay.reading import Place, Reader
from outbox.table import COMMAND, TABLE
from outbox.windows import Hook, RelayWindow, nowhere
from outbox.writer import one_round_trip
from shared import home
from shared.errors import CheckpointRefused, LabError
from shared.postgres import READ_COMMITTED, Connection, settle
from shared.snapshot import Snapshot

BEGIN = "insert into outbox_checkpoint (relay) values (%s) on conflict do nothing"
# A checkpoint is that of a row: not of another one that has its place since a restore. What it has passed is forgotten
# with an adoption: positions may begin anew.
RESUME = """
select previous::text, current::text, case when pg_snapshot_xmax(previous) > outbox_xid('0') then passed else 0 end,
       position, id::text, not exists (select from outbox where published_at is null
                                       and outbox.position = place.position and outbox.id <> place.id)
from outbox_checkpoint as place where relay = %s
"""
NOTE = """
update outbox_checkpoint set previous = %s, current = %s, passed = %s, position = %s, id = %s where relay = %s
"""
REMEDY = "find the last event that was published, and go on behind it (outbox/operating/slots.py)"


@dataclass
class CursorRelay:
    """One process; its name is that of its checkpoint, and keeps a second one out (see holding.py)."""

    connection: Connection
    publisher: Publisher
    batch: int = 500  # rows per page
    interval: float = 0.01  # seconds between polls of an outbox without news
    at: Hook = nowhere
    name: str = "cursor"
    pages: int = 40  # pages between two checkpoints: 20,000 rows are in doubt at most, as in the log relay
    patience: float = PATIENCE  # seconds that one of the same name is waited for

    def __post_init__(self) -> None:
        """Raises NotAdopted where the rows were restored from another cluster, and CheckpointRefused."""
        home.check(self.connection, TABLE, COMMAND)
        # A note that a crash of Postgres takes back only repeats events; waiting for the disk would hold up the drain.
        settle(self.connection, synchronous_commit="off", **READ_COMMITTED)
        hold(self.connection, self.name, self.patience)
        self.connection.execute(BEGIN, [self.name])
        self.reader = Reader(self.connection, self._noted(), self.batch)

    def run(self, stop: threading.Event) -> None:
        with few_collections():
            while not stop.is_set():
                if attempt(self.step, stop) < self.batch:
                    stop.wait(self.interval)

    def close(self) -> None:
        self.publisher.close()
        let_go(self.connection, self.name)

    def step(self) -> int:
        """Move up to `pages` pages of a window, then note how far.

        Raises KafkaException; the next step goes on from the note.
        """
        try:
            return self._move()
        except KafkaException:
            self.reader.abandon()
            self.reader.place = self._noted()
            raise

    def _move(self) -> int:
        """Postgres reads on while the producer takes a page."""
        moved, reading = 0, self.reader.place.current
        for rows in self.reader.pages(self.batch * self.pages):
            self.at(RelayWindow.AFTER_READ)
            self.publisher.send(rows)
            moved += len(rows)
        ended = reading and not self.reader.place.current
        if moved or ended:  # a window that was empty from the beginning may be read again
            self._checkpoint()
        return moved

    def _checkpoint(self) -> None:
        self.publisher.flush()
        self.at(RelayWindow.AFTER_PUBLISH)
        with one_round_trip(self.connection):
            park(self.connection, self.publisher.take_refused())
            self._note(self.reader.place)
            self.at(RelayWindow.AFTER_MARK)
        self.at(RelayWindow.AFTER_COMMIT)

    def _note(self, place: Place) -> None:
        current = str(place.current) if place.current else None
        values = [str(place.previous), current, place.passed, place.position, place.id, self.name]
        self.connection.execute(NOTE, values)

    def _noted(self) -> Place:
        row = self.connection.execute(RESUME, [self.name]).fetchone()
        previous, current, *rest, same = row or ("1:1:", None, False)
        place = Place(Snapshot.parse(previous), Snapshot.parse(current) if current else None, *rest)
        # As after a restore to an earlier time: it cannot have seen what is yet to come.
        if not same or (place.current or place.previous).xmax > home.snapshot(self.connection, TABLE).xmax:
            raise CheckpointRefused(f"relay {self.name!r}", REMEDY)
        return place


def published_by(connection: Connection, name: str = "cursor") -> Snapshot:
    """What it sees is published by the relay of that name, or parked. Raises LabError where there was no such relay."""
    row = connection.execute("select previous::text from outbox_checkpoint where relay = %s", [name]).fetchone()
    if row is None:
        raise LabError(f"there was no cursor relay {name!r}")
    return Snapshot.parse(row[0])
