"""Sagas in Postgres: read and locked, written many at a time, with the history of each."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from saga import transport
from saga.orchestrator.definition import Definition, DefinitionError, decode, encode
from saga.orchestrator.machine import SagaState, Status
from saga.transport import Place
from shared.postgres import Connection, connect

SCHEMA = Path(__file__).with_name("schema.sql")
COLUMNS = """id, status, step, extract(epoch from deadline)::float8, undoing, attempt, waiting,
 extract(epoch from due)::float8, asked, reason, definition, version, payload"""
# In the order of their ids: two workers that lock the same sagas wait for each other, never in a circle.
LOCK = f"select {COLUMNS} from sagas where id = any(%s) order by id for update"  # noqa: S608
DUE = f"select {COLUMNS} from sagas where due <= to_timestamp(%s) order by due limit %s for update skip locked"  # noqa: S608
ASKED = f"select {COLUMNS} from sagas where due is not null and waiting and asker = %s"  # noqa: S608
SAVE = """
update sagas set status = t.status, step = t.step, deadline = to_timestamp(t.deadline), undoing = t.undoing,
 attempt = t.attempt, waiting = t.waiting, due = to_timestamp(t.due), asked = t.asked, reason = t.reason, asker = %s,
 ended_at = case when t.status not in ('running', 'compensating') then clock_timestamp() end
from unnest(%s::text[], %s::text[], %s::int[], %s::float8[], %s::boolean[], %s::int[], %s::boolean[], %s::float8[],
 %s::text[], %s::text[])
 as t (id, status, step, deadline, undoing, attempt, waiting, due, asked, reason) where sagas.id = t.id
"""
ADD = """
with added as (
 insert into sagas (id, status, step, deadline, undoing, attempt, waiting, due, asked, reason,
  definition, version, payload, asker)
 values (%s, %s, %s, to_timestamp(%s), %s, %s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s)
 on conflict (id) do nothing returning id
)
insert into saga_log (saga, note) select id, %s::text from added
"""
LOG = "insert into saga_log (saga, note) select * from unnest(%s::text[], %s::text[])"
NOBODY = -1  # the asker of a command that no worker sends again at its start: the time-out does


@dataclass(frozen=True, slots=True)
class Saga:
    """A row: the state, and what it is the state of."""

    state: SagaState
    definition: str
    version: int
    payload: bytes


@dataclass
class Changes:
    """What one transaction writes: states by saga, notes (saga, note), places read up to, messages put aside."""

    sagas: dict[str, Saga] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    places: Mapping[Place, int] = field(default_factory=dict)
    parked: list[tuple[Message, str]] = field(default_factory=list)


class Store:
    """The orchestrator's database, as one process uses it. `asker` is the number of the worker."""

    def __init__(self, connection: Connection, asker: int = NOBODY) -> None:
        self.connection = connection
        self.asker = asker
        self._definitions: dict[tuple[str, int], Definition] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.connection.transaction():
            yield

    def lock(self, sagas: Iterable[str]) -> dict[str, Saga]:
        """Those of these sagas that there are, until the end of the transaction."""
        return _by_id(self.connection.execute(LOCK, [list(sagas)], prepare=True).fetchall())

    def due(self, now: float, most: int) -> dict[str, Saga]:
        """Locked sagas whose time has come; not those that another worker has in hand."""
        return _by_id(self.connection.execute(DUE, [now, most], prepare=True).fetchall())

    def asked(self) -> dict[str, Saga]:
        """Sagas that wait for the answer to a command that this worker had to send."""
        return _by_id(self.connection.execute(ASKED, [self.asker]).fetchall())

    def offsets(self) -> dict[Place, int]:
        return transport.offsets(self.connection)

    def save(self, changes: Changes) -> None:
        """Write all of it, in one trip to the database."""
        with self.connection.pipeline():
            if changes.sagas:
                columns = zip(*(_fields(saga.state) for saga in changes.sagas.values()), strict=True)
                self.connection.execute(SAVE, [self.asker, *map(list, columns)], prepare=True)
            if changes.notes:
                sagas, notes = zip(*changes.notes, strict=True)
                self.connection.execute(LOG, [list(sagas), list(notes)], prepare=True)
            transport.advance(self.connection, changes.places)
            for message, reason in changes.parked:
                transport.park(self.connection, message, reason)

    def add(self, saga: Saga, note: str) -> bool:
        """A new saga, committed; whether it was not there before."""
        values = [*_fields(saga.state), saga.definition, saga.version, saga.payload, self.asker, note]
        return self.connection.execute(ADD, values, prepare=True).rowcount == 1

    def definition(self, name: str, version: int) -> Definition:
        """Raises DefinitionError when it is not there, or cannot be read by this program."""
        if (name, version) not in self._definitions:
            found = "select body from definitions where name = %s and version = %s"
            if (row := self.connection.execute(found, [name, version]).fetchone()) is None:
                raise DefinitionError(name, [f"there is no version {version} of it"])
            self._definitions[name, version] = decode(row[0])
        return self._definitions[name, version]

    def definition_of(self, saga: Saga) -> Definition:
        """Raises DefinitionError, also where the saga is at a step that its definition does not have."""
        definition, state = self.definition(saga.definition, saga.version), saga.state
        if not 0 <= state.step < len(definition.steps) or (state.undoing and not definition.steps[state.step].undo):
            raise DefinitionError(
                saga.definition, [f"there is nothing to {'undo' if state.undoing else 'do'} at step {state.step}"]
            )
        return definition


def create(conninfo: str, *definitions: Definition) -> None:
    """The orchestrator's tables, in a schema of their own."""
    with connect(conninfo) as connection, connection.transaction():
        connection.execute(SCHEMA.read_text())
        connection.execute(transport.TABLES)
        for definition in definitions:
            publish(connection, definition)


def publish(connection: Connection, definition: Definition) -> None:
    """Make a definition known to all workers. Raises DefinitionError when its version is another one already."""
    new = "insert into definitions values (%s, %s, %s) on conflict (name, version) do nothing"
    connection.execute(new, [definition.name, definition.version, encode(definition)])
    if Store(connection).definition(definition.name, definition.version) != definition:
        problem = f"version {definition.version} is there and says something else: count the version up"
        raise DefinitionError(definition.name, [problem])


def _by_id(rows: Iterable[tuple[Any, ...]]) -> dict[str, Saga]:
    return {row[0]: _saga(row) for row in rows}


def _saga(row: tuple[Any, ...]) -> Saga:
    """From COLUMNS."""
    id_, status, step, deadline, undoing, attempt, waiting, due, asked, reason, definition, version, payload = row
    actions = tuple(asked.split())
    state = SagaState(id_, Status(status), step, deadline, undoing, attempt, waiting, due, actions, reason)
    return Saga(state, definition, version, payload)


def _fields(s: SagaState) -> tuple[object, ...]:
    """The columns of a state, in the order of SAVE and ADD."""
    asked = " ".join(s.asked)
    return s.id, s.status.value, s.step, s.deadline, s.undoing, s.attempt, s.waiting, s.due, asked, s.reason
