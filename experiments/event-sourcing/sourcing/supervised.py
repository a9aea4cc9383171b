"""Tellers and a projector that outlive their database: what fails is tried again, and the outcome of it may be unknown.

A session that breaks while it waits for the answer to an append leaves three possibilities: it never arrived, it was
refused, it is there. `repeat_the_same` is right in all of them; `append_anew` is what a retry on errors comes to.
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from shared.faults import Crash, Hook, nowhere
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from sourcing.account import Account
from sourcing.errors import WrongExpectedVersion
from sourcing.event import Data, Metadata, NewEvent, Position, Recorded, data_of, metadata_of
from sourcing.postgres import PostgresStore
from sourcing.processes import Bank, Movement, pass_gate
from sourcing.readers import PAIR, Reader
from sourcing.repository import Repository, as_stored
from sourcing.store import ANY

T = TypeVar("T")
AWAY = psycopg.OperationalError, psycopg.InterfaceError
AGAIN = 0.02  # seconds before the next attempt at a database that was away
PATIENCE = 5  # seconds after which a connection attempt counts as failed


class AppendWindow(StrEnum):
    """Where a writer can die while it appends."""

    BEFORE = "before the append"
    UNANSWERED = "sent, not answered"  # nothing of ours runs in it: it is killed from outside
    AFTER = "answered, not noted"


class ProjectWindow(StrEnum):
    """Where a projector can die while it takes over a page of events."""

    BETWEEN = "model changed, checkpoint not"
    AFTER = "committed"


@dataclass(frozen=True)
class Kill:
    """kill -9 in a window, at the nth time that it is passed."""

    window: AppendWindow | ProjectWindow
    nth: int = 1


class Session:
    """A store on a connection that is made again when it was lost."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = make_conninfo(conninfo, connect_timeout=PATIENCE)
        self._store: PostgresStore | None = None

    def store(self) -> PostgresStore:
        if self._store is None or self._store.connection.closed:
            self._store = PostgresStore(connect(self.conninfo))
        return self._store

    def keep_trying(self, attempt: Callable[[PostgresStore], T], doubt: Callable[[], object] = lambda: None) -> T:
        """The attempt's result; after each failure `doubt` is called, and the attempt is repeated on a new session."""
        while True:
            try:
                return attempt(self.store())
            except AWAY as error:
                print(f"{now()} again after {type(error).__name__}: {error}")
                doubt()
                time.sleep(AGAIN)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


# The writers.


def repeat_the_same(session: Session, movement: Movement, doubt: Callable[[], object]) -> None:
    """Decide once, and repeat this very append, id and expected version included, until it is answered."""
    while True:
        account, seen = session.keep_trying(partial(_load, movement.account))
        if movement.id in seen:
            return  # by an earlier life of this process, which could not note it
        account.because = Metadata(causation_id=movement.id)
        account.deposit(movement.cents)
        events = [replace(event, id=movement.id) for event in account.uncommitted]
        try:
            session.keep_trying(lambda store: store.append(account.stream, events, account.version), doubt)  # noqa: B023
            return
        except WrongExpectedVersion:
            continue  # another one has the version: whatever became of ours, it was not written; decide again


def append_anew(session: Session, movement: Movement, doubt: Callable[[], object]) -> None:
    """WRONG: an error is taken for "not done", and the retry is a new event on whatever is there."""

    def attempt(store: PostgresStore) -> int:
        because = Metadata(causation_id=movement.id)
        event = NewEvent("Deposited", {"cents": movement.cents}, metadata=because)
        return store.append(f"account-{movement.account}", [event], ANY)

    session.keep_trying(attempt, doubt)


WAYS = {"the same append again": repeat_the_same, "a new append": append_anew}


def deposit_through(bank: Bank, way: str, teller: int, first: int = 0, kill: Kill | None = None) -> None:
    """A process: do the deposits from number `first` on, whatever becomes of the database, or until SIGTERM."""
    stop, session = _on_sigterm(), Session(bank.conninfo)
    with Recorder(bank.history, f"teller-{teller}") as recorder:
        at = _hook(recorder, kill)
        session.keep_trying(lambda store: pass_gate(store.connection))
        for movement in islice(bank.deposits(teller), first, None):
            if stop.is_set():
                break
            note = partial(recorder.record, Action.WRITE, value=movement.id, key=f"account-{movement.account}")
            note(Outcome.INVOKE)
            at(AppendWindow.BEFORE)
            WAYS[way](session, movement, partial(note, Outcome.UNKNOWN))
            at(AppendWindow.AFTER)
            note(Outcome.OK)
    session.close()


def _load(ident: str, store: PostgresStore) -> tuple[Account, set[str]]:
    """The account, and the ids of the events that it was made of."""
    seen: set[str] = set()

    def read(event: Recorded) -> list[tuple[str, Data]]:
        seen.add(event.id)
        return list(as_stored(event))

    return Repository(store, Account, read).load(ident), seen


def _hook(recorder: Recorder, kill: Kill | None) -> Hook:
    return Crash(recorder, kill.window, kill.nth) if kill else nowhere


def _on_sigterm() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


# The projector.

MODEL = """
create table balances (account text primary key, cents bigint not null, events int not null);
create table checkpoint (xid bigint not null, position bigint not null);
insert into checkpoint values (0, 0);
"""
_APPLY = """
insert into balances values (%s, %s, 1)
on conflict (account) do update set cents = balances.cents + excluded.cents, events = balances.events + 1
"""


def project(bank: Bank, kill: Kill | None = None) -> None:
    """A process: keep the balances until SIGTERM. What was read may be read again; what was counted is not."""
    stop, session = _on_sigterm(), Session(bank.conninfo)
    with Recorder(bank.history, "projector") as recorder:
        step = partial(project_page, recorder=recorder, at=_hook(recorder, kill))
        while not stop.is_set():
            if session.keep_trying(step) == 0:
                stop.wait(0.005)
    session.close()


def project_page(store: PostgresStore, recorder: Recorder, at: Hook = nowhere) -> int:
    """Model and checkpoint by one commit; returns how many events."""
    before = checkpoint(store.connection)
    page = store.read_all(before)
    if page:
        recorder.add(*(_op(Action.DELIVER, event, "projector") for event in page))
        with store.connection.transaction():
            changes = [(event.stream, data_of(event).get("cents", 0)) for event in page]
            store.connection.cursor().executemany(_APPLY, changes)
            at(ProjectWindow.BETWEEN)
            _move(store.connection, before, page[-1].place)
        at(ProjectWindow.AFTER)
    return len(page)


def checkpoint(connection: Connection) -> Position:
    [(xid, position)] = connection.execute("select xid, position from checkpoint").fetchall()
    return xid, position


def _move(connection: Connection, before: Position, after: Position) -> None:
    """Raises RuntimeError, and so takes the model's changes back, when another projector was here meanwhile."""
    query = "update checkpoint set xid = %s, position = %s where xid = %s and position = %s"
    if connection.execute(query, [*after, *before]).rowcount != 1:
        raise RuntimeError(f"the checkpoint is not at {before} any more: another projector runs")


def read_model(conninfo: str) -> dict[str, tuple[int, int]]:
    """Stream -> (cents, events), as the projector has it."""
    with connect(conninfo) as connection:
        found = connection.execute("select account, cents, events from balances").fetchall()
        return {stream: (cents, events) for stream, cents, events in found}


# What is there, and what it took.


def read_log(conninfo: str) -> list[Recorded]:
    """All events that a reader may have now, in their order."""
    events: list[Recorded] = []
    with connect(conninfo) as connection:
        reader = Reader(connection, PAIR, events.append)
        while reader.step():
            continue
    return events


def gone(conninfo: str, history: Path) -> int:
    """How many appends under ids of their own were acknowledged, by now, and are not in the log."""
    acknowledged = {op.value for op in History.read(history).of(Action.WRITE, Outcome.OK)}
    with connect(conninfo) as connection:
        return len(acknowledged - {ident for (ident,) in connection.execute("select id::text from events").fetchall()})


def settle(conninfo: str, recorder: Recorder) -> list[Recorded]:
    """The final read: the whole log in order, every event the effect of the command that it says it follows from."""
    events: list[Recorded] = []
    with connect(conninfo) as connection:
        Reader(connection, PAIR, events.append).finish()
    for event in events:
        recorder.add(_op(Action.READ, event, "database"), _op(Action.EFFECT, event, "log"))
    recorder.record(Action.READ, Outcome.OK, process="database")
    return events


def recovery(history: History, note: str = "SIGKILL, restart") -> list[float]:
    """Seconds from each such fault to the first append that was acknowledged after its end."""
    acknowledged = [op.at for op in history.of(Action.WRITE, Outcome.OK)]
    faults = [fault for fault in history.faults if fault.note == note]
    return [(min(at for at in acknowledged if at > fault.until) - fault.at) / 1e9 for fault in faults]


def _op(action: Action, event: Recorded, process: str) -> Op:
    command = metadata_of(event).causation_id or event.id
    return Op(now(), process, action, Outcome.OK, command, event.stream, event.version)
