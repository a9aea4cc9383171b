"""Replication slots under watch, and the way back when one was lost.

A slot that nobody reads makes Postgres keep its log, of all tables, until the disk is full. `max_slot_wal_keep_size` is
the fuse: past it Postgres gives up the slot, for good. What the slot had not yet sent is then only in the outbox table:
which is why published rows are kept for longer than a relay may be away.
"""

from collections.abc import Collection
from dataclasses import dataclass

from outbox.relay.cursor import CursorRelay
from outbox.relay.holding import let_go
from outbox.relay.publisher import Publisher
from outbox.table import TABLE
from shared import home
from shared.errors import LabError
from shared.postgres import Connection, number
from shared.wait import until

MB = 1_000_000
READ = """
select active, coalesce(wal_status, 'lost'), safe_wal_size,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
from pg_replication_slots where slot_name = %s
"""
FIRST_MISSING = "select min(position) - 1 from outbox where id <> all(%s::uuid[])"
START = """
insert into outbox_checkpoint (relay, current, position) values (%s, %s, %s)
on conflict (relay) do update set previous = default, current = excluded.current, passed = default,
    position = excluded.position, id = null
"""
RECOVERY = "recovery"
PATIENCE = 600.0  # seconds that the recovery waits for transactions that were open when it began


@dataclass(frozen=True)
class Slot:
    """A slot as Postgres sees it (pg_replication_slots)."""

    name: str
    active: bool
    status: str  # reserved, extended (kept although max_wal_size is passed), unreserved (about to go), lost
    kept: int  # bytes of log that are kept for it
    safe: int | None  # bytes that may still be written before it is lost; None: there is no limit, or it is lost

    def alarm(self, kept: int) -> str:
        """Why somebody should be woken: it is lost, about to be, or keeps more than `kept` bytes. Empty: it is well."""
        if self.status in ("lost", "unreserved"):
            return f"slot {self.name} is {self.status}"
        if self.kept > kept:
            reader = "its reader is behind" if self.active else "nobody reads it"
            return f"slot {self.name} keeps {self.kept / MB:.0f} MB of log: {reader}"
        return ""


def look(connection: Connection, name: str) -> Slot:
    """The slot now. Raises LabError when there is none: a missing slot is an alarm, too."""
    row = connection.execute(READ, [name]).fetchone()
    if row is None:
        raise LabError(f"there is no replication slot {name!r}")
    active, status, safe, kept = row
    return Slot(name, active, status, kept, None if status == "lost" else safe)


def wait_until_read(connection: Connection, name: str) -> None:
    """Return when the slot's reader has confirmed all that is committed by now. Raises DeadlineExceeded.

    A message marks the end, and its commit flushes it. The log's own end would not do: what reads write there (hint
    bits, under checksums) is flushed by no commit, may wait for ten seconds, and is not sent before.
    """
    row = connection.execute("select pg_logical_emit_message(true, 'end', '')::text").fetchone()
    end = row[0] if row else ""
    query = "select confirmed_flush_lsn >= %s::text::pg_lsn from pg_replication_slots where slot_name = %s"
    until(f"slot {name} to be read to {end}", lambda: connection.execute(query, [end, name]).fetchone() == (True,))


def log_on_disk(connection: Connection) -> int:
    """Bytes of log on the disk, for whatever reason they are kept."""
    return number(connection, "select sum(size)::bigint from pg_ls_waldir()")


def first_missing(connection: Connection, published: Collection[str]) -> int | None:
    """The position before the first row whose event is not among the published ids; None when none is missing.

    A log relay publishes in the order of commits, the table is read in the order of positions: behind the first missing
    row some may be published already, and will come twice. Ask when the new slot is made: what it will not show is
    committed by then.
    """
    row = connection.execute(FIRST_MISSING, [list(published)]).fetchone()
    return row[0] if row else None


def publish_from(connection: Connection, publisher: Publisher, start: int) -> int:
    """Publish from the table all that lies behind `start`; returns how many. To be called when the new slot is made.

    A transaction that the new slot will not show committed before the slot stood, so it began before now. When those
    have ended, one window shows them all. What was written since comes from both: twice.
    """
    row = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
    until("older transactions to end", lambda: _ended(connection, row[0] if row else ""), PATIENCE)
    connection.execute(START, [RECOVERY, str(home.snapshot(connection, TABLE)), start])
    relay, moved = CursorRelay(connection, publisher, name=RECOVERY), 0
    while relay.reader.place.current:
        moved += relay.step()
    let_go(connection, RECOVERY)
    return moved


def _ended(connection: Connection, xid: str) -> bool:
    """Whether every transaction before this one has ended."""
    query = "select pg_snapshot_xmin(pg_current_snapshot()) >= %s::text::xid8"
    row = connection.execute(query, [xid]).fetchone()
    return bool(row and row[0])
