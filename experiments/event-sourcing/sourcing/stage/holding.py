"""A transaction that stays open while others write, for readers to wait for; and two that pass each other.

Both wait until what they are to show has happened: how fast the machine is does not matter.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from psycopg.conninfo import make_conninfo

from shared.history import Action, History, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.wait import until
from sourcing.holdback import HoldingBack, oldest_writer
from sourcing.postgres import PostgresStore
from sourcing.stage.reading import deposited
from sourcing.stage.writers import Bank, Movement

PATIENCE = 60.0  # seconds for readers and writers to do something
REPORT = "nightly-report"  # the application whose transaction stays open
SETTLED = "select pg_snapshot_xmin(pg_current_snapshot()) >= %s::text::xid8"


class Spell(NamedTuple):
    """For how long a transaction was open, in ns, and whom the alarm named towards the end."""

    began: int
    ended: int
    named: HoldingBack | None


class Lags:
    """When each event that was read was acknowledged, and when it was read: ns, by the clock of the machine."""

    def __init__(self, writes: Path, reads: Path) -> None:
        history = History.read(*(path for path in (writes, reads) if path.exists()))
        done = {op.value: op.at for op in history.of(Action.WRITE, Outcome.OK)}
        self.events = [(done[op.value], op.at) for op in history.delivered if op.value in done]

    def longest(self, spell: Spell) -> float:
        """In seconds, of the events acknowledged in that time. A reader may be faster than the acknowledgement."""
        lags = (max(read - done, 0) for done, read in self.events if spell.began <= done <= spell.ended)
        return max(lags, default=0) / 1e9

    def meanwhile(self, began: int, ended: int) -> int:
        """How many events were acknowledged in that time and read in it."""
        return sum(began <= done and read <= ended for done, read in self.events)


def hold(bank: Bank, seconds: float, statement: str, reads: Path | None = None) -> Spell:
    """Open for so long after a transaction begun meanwhile was acknowledged.

    With the history of a reader, also until it has read more of what was written meanwhile than an older transaction of
    every writer: the bank's have an account each.
    """

    def read() -> bool:
        return reads is None or Lags(bank.history, reads).meanwhile(began, time.monotonic_ns()) > bank.accounts

    with connect(bank.conninfo) as watching, open_transaction(bank.conninfo) as connection:
        connection.execute(statement)
        began, before = time.monotonic_ns(), _events(watching)
        xid = connection.execute("select pg_current_xact_id_if_assigned()::text").fetchone()
        if xid and xid[0]:  # the alarm would name an older one, and rightly
            until("older transactions to end", lambda: watching.execute(SETTLED, xid).fetchone() == (True,), PATIENCE)
        # Of three by one writer, the second was begun since, and was acknowledged before the third.
        enough = before + 2 * bank.accounts + 1
        until("writers to go on", lambda: _events(watching) >= enough, PATIENCE)
        time.sleep(seconds)
        until("the reader to go on", read, PATIENCE)
        return Spell(began, time.monotonic_ns(), oldest_writer(watching))


@contextmanager
def open_transaction(conninfo: str) -> Iterator[Connection]:
    with connect(make_conninfo(conninfo, application_name=REPORT)) as connection:
        connection.execute("begin isolation level repeatable read")
        yield connection
        connection.execute("commit")


def await_readers(bank: Bank, readers: Sequence[Path], cross: bool) -> None:
    """Write a first event and wait until it is in the histories of all the readers: from now on they read.

    With `cross`, a second event is open meanwhile, of a newer transaction and with an older position: whoever reads on
    by position has passed over it, and has no way back.
    """
    first, second = (next(bank.movements(-1, f"{name}-of-all", 1)) for name in ("first", "second"))
    with Recorder(bank.history, "first") as recorder, connect(bank.conninfo) as older, connect(bank.conninfo) as newer:
        with newer.transaction():
            with older.transaction():
                older.execute("insert into notes values ('this draws the xid')")
                if cross:
                    _append(newer, recorder, second)
                _append(older, recorder, first)
            recorder.record(Action.WRITE, Outcome.OK, first.id, key=first.account)
            until("readers to read", lambda: all(_has_read(path, first.id) for path in readers), PATIENCE)
        if cross:
            recorder.record(Action.WRITE, Outcome.OK, second.id, key=second.account)


def _append(connection: Connection, recorder: Recorder, movement: Movement) -> None:
    recorder.record(Action.WRITE, Outcome.INVOKE, movement.id, key=movement.account)
    PostgresStore(connection).append(f"account-{movement.account}", [deposited(movement)])


def _has_read(history: Path, ident: str) -> bool:
    return history.exists() and any(op.value == ident for op in History.read(history).delivered)


def _events(connection: Connection) -> int:
    return int((connection.execute("select count(*) from events").fetchone() or (0,))[0])
