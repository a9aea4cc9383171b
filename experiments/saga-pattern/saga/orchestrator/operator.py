"""What an operator sees and does: sagas that wait for a decision, one saga's history, messages that were put aside."""

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from saga.orchestrator import machine
from saga.orchestrator.machine import Told, Verb
from saga.orchestrator.store import Changes, Store
from saga.transport import Outlet, restored
from shared.errors import LabError
from shared.postgres import Connection

LIST = """
select id, definition || ' ' || version, status, step, attempt, asked, reason, started_at, due from sagas
where status = any(%s) order by status = 'parked' desc, started_at, id limit %s
"""
TAKE = "delete from parked_messages where position = %s returning topic, key, value, headers"
COUNT = "select count(*) from sagas where status = any(%s)"


class NoSuchSaga(LabError):
    """There is no saga of that id."""


class NoSuchMessage(LabError):
    """No message of that number was put aside."""


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
    """A message that was put aside. `number` is what it is called by in `resend` and `discard`."""

    number: int
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
    query = (
        'select position, topic, partition, "offset", parked_at, reason, value from parked_messages order by position'
    )
    return [Put(*row) for row in connection.execute(query).fetchall()]


def resend(connection: Connection, outlet: Outlet, number: int) -> None:
    """Decide that a message that was put aside can be used by now: back to its topic with it, as it came.

    Raises NoSuchMessage; and NotSent, and then it is still put aside.
    """
    with connection.transaction():
        topic, key, value, headers = _taken(connection, number)
        outlet.put(topic, value, key, [*restored(headers)])
        outlet.flush()


def discard(connection: Connection, number: int) -> None:
    """Decide that nobody needs a message that was put aside. Raises NoSuchMessage."""
    _taken(connection, number)


def _taken(connection: Connection, number: int) -> tuple[str, bytes | None, bytes | None, bytes]:
    row = connection.execute(TAKE, [number]).fetchone()
    if row is None:
        raise NoSuchMessage(f"no message {number} was put aside")
    return row


def tell(connection: Connection, saga: str, verb: Verb) -> str:
    """Decide about a saga; a worker acts on it at once. Returns its new status. Raises NoSuchSaga, NotPossible."""
    store = Store(connection)
    with store.transaction():
        if (found := store.lock([saga]).get(saga)) is None:
            raise NoSuchSaga(f"there is no saga {saga!r}")
        turn = machine.happen(store.definition_of(found), found.state, Told(verb), time.time())
        store.save(Changes({saga: replace(found, state=turn.state)}, [(saga, turn.note)]))
    return turn.state.status
