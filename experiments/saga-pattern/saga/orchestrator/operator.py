"""What an operator sees and does: sagas that wait for a decision, one saga's history, messages that were put aside."""

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from saga.orchestrator import machine
from saga.orchestrator.machine import Told, Verb
from saga.orchestrator.store import Changes, Store
from shared.errors import LabError
from shared.postgres import Connection

LIST = """
select id, definition || ' ' || version, status, step, attempt, asked, reason, started_at, due from sagas
where status = any(%s) order by status = 'parked' desc, started_at, id limit %s
"""
COUNT = "select count(*) from sagas where status = any(%s)"


class NoSuchSaga(LabError):
    """There is no saga of that id."""


class Shown(NamedTuple):
    """A saga in a list. `asked`: the actions that were ever asked for; the last is the current one."""

    id: str
    definition: str
    status: str
    step: int
    attempt: int
    asked: str
    reason: str
    started_at: datetime
    due: datetime | None


class Noted(NamedTuple):
    """One line of a saga's history."""

    at: datetime
    note: str


class Put(NamedTuple):
    """A message that was put aside."""

    topic: str
    partition: int
    offset: int
    parked_at: datetime
    reason: str
    value: bytes | None


def sagas(connection: Connection, statuses: Iterable[str], most: int | None = 100) -> list[Shown]:
    """Sagas of these statuses, `most` or all: those that wait for an operator, then the others; each oldest first."""
    return [Shown(*row) for row in connection.execute(LIST, [list(statuses), most]).fetchall()]


def count(connection: Connection, statuses: Iterable[str]) -> int:
    """How many sagas of these statuses there are."""
    row = connection.execute(COUNT, [list(statuses)]).fetchone()
    return int(row[0]) if row else 0


def history(connection: Connection, saga: str) -> list[Noted]:
    """What happened to a saga, in order."""
    lines = "select at, note from saga_log where saga = %s order by position"
    return [Noted(*row) for row in connection.execute(lines, [saga]).fetchall()]


def put_aside(connection: Connection) -> list[Put]:
    """Messages that could not be used, oldest first."""
    query = 'select topic, partition, "offset", parked_at, reason, value from parked_messages order by position'
    return [Put(*row) for row in connection.execute(query).fetchall()]


def tell(connection: Connection, saga: str, verb: Verb) -> str:
    """Decide about a saga; a worker acts on it at once. Returns its new status. Raises NoSuchSaga, NotPossible."""
    store = Store(connection)
    with store.transaction():
        if (found := store.lock([saga]).get(saga)) is None:
            raise NoSuchSaga(f"there is no saga {saga!r}")
        turn = machine.happen(store.definition(found.definition, found.version), found.state, Told(verb), time.time())
        store.save(Changes({saga: replace(found, state=turn.state)}, [(saga, turn.note)]))
    return turn.state.status
