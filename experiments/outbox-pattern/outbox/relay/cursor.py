"""The cursor relay: read on from the last (xid, position), behind the oldest open transaction; delete nothing.

Positions come from a sequence, in the order of nextval, not of commit: a reader of `position > last` passes over a
transaction that commits late. Transaction ids alone do not help either, if rows are then read in the order of position.
The pair does: xid < pg_snapshot_xmin() holds only for transactions that have ended, so a page in the order of (xid,
position) can never get a row in its middle later. (PostgreSQL documentation, "Transaction ID and Snapshot Information
Functions".) The price: one long transaction anywhere in the database holds the relay back.
"""

import select
import threading
from dataclasses import dataclass

from confluent_kafka import KafkaException
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from outbox.parking import park
from outbox.relay.holding import PATIENCE, hold, let_go
from outbox.relay.message import COLUMNS, Row
from outbox.relay.publisher import Publisher, attempt, few_collections
from outbox.table import COMMAND, TABLE
from outbox.windows import RelayWindow
from shared import home
from shared.errors import CheckpointRefused
from shared.faults import Hook, nowhere
from shared.postgres import READ_COMMITTED, Connection, settle

PAGE = f"""
select {COLUMNS} from outbox
where (xid, position) > ($1::text::xid8, $2::bigint) and xid < outbox_xid(pg_snapshot_xmin(pg_current_snapshot()))
order by xid, position limit $3::bigint
""".encode()  # noqa: S608
# A checkpoint is that of a row: not of another one that has its place since a restore, nor of a transaction to come.
RESUME = """
select xid::text, position, id::text, xid < outbox_xid(pg_snapshot_xmax(pg_current_snapshot())) and not exists (
    select from outbox where (outbox.xid, outbox.position) = (place.xid, place.position) and outbox.id <> place.id)
from outbox_checkpoint as place where relay = %s
"""
BEGIN = "insert into outbox_checkpoint (relay, xid, position) values (%s, '0', 0) on conflict do nothing"
NOTE = "update outbox_checkpoint set xid = %s::text::xid8, position = %s, id = %s where relay = %s"
REMEDY = "find the last event that was published, and go on behind it (outbox/slots.py)"


@dataclass
class CursorRelay:
    """One process; its name is that of its checkpoint, and keeps a second one out (see holding.py)."""

    connection: Connection
    publisher: Publisher
    batch: int = 500  # rows per page
    interval: float = 0.01  # seconds between polls of an outbox without news
    at: Hook = nowhere
    name: str = "cursor"
    pages: int = 20  # pages between two checkpoints: 10,000 rows are in doubt at most
    patience: float = PATIENCE  # seconds that one of the same name is waited for

    def __post_init__(self) -> None:
        """Raises NotAdopted where the rows were restored from another cluster, and CheckpointRefused."""
        home.check(self.connection, TABLE, COMMAND)
        # A note that a crash of Postgres takes back only repeats events; waiting for the disk would hold up the drain.
        settle(self.connection, synchronous_commit="off", **READ_COMMITTED)
        hold(self.connection, self.name, self.patience)
        self.connection.execute(BEGIN, [self.name])
        self._rows = Transformer(self.connection)
        self._asked = False
        self._resume()

    def _resume(self) -> None:
        """Stand where the last note says; what was asked for since is dropped."""
        if self._asked:
            self._receive()
        self._ahead: list[Row] = []
        row = self.connection.execute(RESUME, [self.name]).fetchone()
        self.xid, self.position, self._last, there = row if row else ("0", 0, None, True)
        if not there:
            raise CheckpointRefused(f"relay {self.name!r}", REMEDY)

    def run(self, stop: threading.Event) -> None:
        with few_collections():
            while not stop.is_set():
                if attempt(self.step, stop) < self.batch:
                    stop.wait(self.interval)

    def close(self) -> None:
        self.publisher.close()
        let_go(self.connection, self.name)

    def step(self) -> int:
        """Move up to `pages` pages, then note how far. Raises KafkaException; the next step goes on from the note."""
        try:
            return self._move()
        except KafkaException:
            self._resume()
            raise

    def _move(self) -> int:
        """Postgres reads a page while the producer takes the last."""
        moved = 0
        for _ in range(self.pages):
            rows = self._receive()
            if not rows:
                break
            self.at(RelayWindow.AFTER_READ)
            self.position, self.xid, self._last = rows[-1][0], rows[-1][1], rows[-1][5]
            if len(rows) == self.batch:
                self._ask()
            self.publisher.send(rows)
            moved += len(rows)
            if not self._asked:
                break
        if moved:
            self._checkpoint()
        return moved

    def _ask(self) -> None:
        """Send the query for the next page, and do not wait for the answer."""
        values = [str(value).encode() for value in (self.xid, self.position, self.batch)]
        self.connection.pgconn.send_query_params(PAGE, values, result_format=1)
        self.connection.pgconn.flush()
        self._asked = True

    def _receive(self) -> list[Row]:
        """The page that was asked for; asks first when none was."""
        if self._ahead:
            rows, self._ahead = self._ahead, []
            return rows
        if not self._asked:
            self._ask()
        self._asked, stream = False, self.connection.pgconn
        while stream.is_busy():
            select.select([stream.socket], [], [])
            stream.consume_input()
        results = list(iter(stream.get_result, None))
        if results[0].status != pq.ExecStatus.TUPLES_OK:
            raise error_from_result(results[0])
        self._rows.set_pgresult(results[0])
        return self._rows.load_rows(0, results[0].ntuples, tuple)

    def _checkpoint(self) -> None:
        self._ahead = self._receive() if self._asked else []  # the session is needed for the note
        self.publisher.flush()
        self.at(RelayWindow.AFTER_PUBLISH)
        with self.connection.transaction():
            park(self.connection, self.publisher.take_refused())
            self.connection.execute(NOTE, [self.xid, self.position, self._last, self.name])
            self.at(RelayWindow.AFTER_MARK)
        self.at(RelayWindow.AFTER_COMMIT)
