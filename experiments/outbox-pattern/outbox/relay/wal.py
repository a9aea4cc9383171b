"""The WAL relay: read inserts into the outbox from Postgres' log, in commit order, without asking the table.

The slot remembers how far we are, and moves only when we say so: after the broker has acknowledged. A crash anywhere
makes Postgres send again what was not confirmed: whole transactions.
"""

import select
import threading
import time
from dataclasses import dataclass

import psycopg
from confluent_kafka import KafkaException
from psycopg import pq, sql

from outbox.parking import park
from outbox.relay import pgoutput
from outbox.relay.message import Row
from outbox.relay.publisher import Publisher, attempt, few_collections
from outbox.windows import Hook, RelayWindow, nowhere
from shared.errors import LabError
from shared.postgres import Connection, connect, drop_slot, settle

# What a message is made of, and no more: what is not listed is not decoded. In the table's order, as they will come.
PUBLISHED = (
    "position, aggregate_type, aggregate_id, payload, id, type, source, sequence, time, "
    "correlation_id, causation_id, content_type, spec_version"
)
HEARTBEAT = 5.0  # seconds between confirmations when there is no news; wal_sender_timeout is 10 s here
BUSY = b"55006"  # SQLSTATE object_in_use
PATIENCE = 10.0  # seconds that a slot's last reader is waited for: Postgres may not have noticed yet that it was killed
PAUSE = 0.1  # seconds between two attempts
CHUNK = 500  # rows handed to the producer at once
IN_DOUBT = 20_000  # rows between two confirmations of a drain: what a crash repeats at most


def set_up(conninfo: str, name: str, schema: str) -> None:
    """Make the publication (inserts only, partitions under the name of the whole) and the slot, both named `name`."""
    table = sql.SQL(
        "create publication {} for table {} ({}) with (publish = 'insert', publish_via_partition_root = true)"
    )
    with connect(conninfo) as connection:
        columns = sql.SQL(PUBLISHED)
        connection.execute(table.format(sql.Identifier(name), sql.Identifier(schema, "outbox"), columns))
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])


def tear_down(conninfo: str, name: str) -> None:
    """Drop slot and publication: a slot that nobody reads keeps Postgres' log for ever.

    Who reads it still is cut off. Raises DeadlineExceeded when the slot is not let go in time.
    """
    with connect(conninfo) as connection:
        drop_slot(connection, name)
        connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))


def lag(connection: Connection, name: str) -> int:
    """How many bytes of log the slot is behind. Raises LabError when there is no such slot: alarm on both."""
    behind = "pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)"
    query = f"select {behind} from pg_replication_slots where slot_name = %s"  # noqa: S608
    row = connection.execute(query, [name]).fetchone()
    if row is None or row[0] is None:
        raise LabError(f"there is no replication slot {name!r} that can be followed")
    return int(row[0])


@dataclass
class WalRelay:
    """Follows the slot `name` (see set_up), which refuses a second one. `connection` is only for parking."""

    conninfo: str
    connection: Connection
    publisher: Publisher
    name: str
    at: Hook = nowhere
    heartbeat: float = HEARTBEAT
    patience: float = PATIENCE  # seconds that the slot's last reader is waited for

    def __post_init__(self) -> None:
        settle(self.connection)
        self.publisher.meanwhile = self._tell  # or Postgres ends the stream while the broker is waited for
        self._begin()

    def _begin(self) -> None:
        """Have the slot's events from the last confirmation on."""
        self._session = psycopg.connect(self.conninfo, autocommit=True, replication="database")
        settle(self._session)  # columns come as text
        self._stream = self._session.pgconn
        result = self._start()
        if result.status != pq.ExecStatus.COPY_BOTH:
            self._session.close()
            raise LabError(f"replication slot {self.name}: {result.error_message.decode().strip()}")
        self._rows: list[Row] = []
        self._confirmed = self._committed = 0
        self._told = time.monotonic()

    def _start(self) -> pq.abc.PGresult:
        """Postgres' answer; while another one has the slot, it is asked again for as long as the patience lasts."""
        start = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})")
        command = start.format(sql.Identifier(self.name), sql.Literal(f'"{self.name}"')).as_string(None).encode()
        end = time.monotonic() + self.patience
        while (result := self._stream.exec_(command)).error_field(pq.DiagnosticField.SQLSTATE) == BUSY:
            if time.monotonic() > end:
                break
            time.sleep(PAUSE)
        return result

    def close(self) -> None:
        self.publisher.close()
        self._session.close()

    def run(self, stop: threading.Event) -> None:
        with few_collections():
            while not stop.is_set():
                if attempt(self.step, stop) == 0:
                    self._wait(0.1)

    def step(self) -> int:
        """Move what has arrived; returns how many events.

        Raises KafkaException; Postgres then sends again what was not confirmed. Raises LabError, psycopg.Error when the
        stream has ended.
        """
        try:
            return self._move()
        except KafkaException:
            self._session.close()
            self._begin()
            raise

    def _move(self) -> int:
        moved = 0
        while moved < IN_DOUBT and (message := self._receive()) is not None:
            moved += self._take(message)
        if self._rows:
            self._hand_over()
        if self.publisher.waiting:
            self._confirm()
        elif time.monotonic() - self._told > self.heartbeat:
            self._tell()
        return moved

    def _receive(self) -> bytes | None:
        """The next message that is here already."""
        length, data = self._stream.get_copy_data(1)
        if length == 0:
            self._stream.consume_input()
            length, data = self._stream.get_copy_data(1)
        if length == -1:
            raise LabError(f"replication slot {self.name}: the server ended the stream")
        return bytes(data) if length > 0 else None

    def _take(self, message: bytes) -> int:
        """Handle one message; returns how many events it was.

        Version 1 of the protocol sends a transaction when it has committed, so inserts go on at once, in chunks.
        """
        if not pgoutput.is_data(message):
            self._on_keepalive(*pgoutput.keepalive(message))
            return 0
        if values := pgoutput.insert(message):
            self._rows.append(_row(values))
            if len(self._rows) >= CHUNK:
                self._hand_over()
            return 1
        if end := pgoutput.commit_end(message):
            self._committed = end
        return 0

    def _hand_over(self) -> None:
        rows, self._rows = self._rows, []
        self.at(RelayWindow.AFTER_READ)
        self.publisher.send(rows)

    def _on_keepalive(self, end: int, wants_answer: bool) -> None:
        # With nothing in doubt, what other tables wrote may go: or an idle outbox would keep a busy database's log.
        if not self._rows and not self.publisher.waiting:
            self._confirmed = max(self._confirmed, end)
        if wants_answer:
            self._tell()

    def _confirm(self) -> None:
        self.publisher.flush()
        self.at(RelayWindow.AFTER_PUBLISH)
        park(self.connection, self.publisher.take_refused())
        self.at(RelayWindow.AFTER_MARK)
        self._confirmed = max(self._confirmed, self._committed)
        self._tell()
        self.at(RelayWindow.AFTER_COMMIT)

    def _tell(self) -> None:
        self._stream.put_copy_data(pgoutput.status(self._confirmed, time.time()))
        self._stream.flush()
        self._told = time.monotonic()

    def _wait(self, seconds: float) -> None:
        select.select([self._stream.socket], [], [], seconds)


def _row(values: list[bytes]) -> Row:
    """A row from its column texts. Attributes stay bytes: that is what headers are."""
    position, topic, key, payload, *rest = values
    return int(position), "", topic.decode(), key, bytes.fromhex(payload[2:].decode()), *rest
