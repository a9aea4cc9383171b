"""The process that moves sagas on: replies and due times in, one transaction for all of them, commands out.

A saga's row says which command is to be sent. Commands are sent after the commit; a worker that dies in between sends
them again when it starts anew, and where it does not, the time-out of the command does it. Either way a service may be
asked twice, and does it once.

Worker number k of n reads every n-th partition of the replies, and those of workers that are gone; it wakes any saga
that is due. Several workers never have the same saga in hand: its row is locked.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from confluent_kafka import Message

from saga.messaging import Garbled, Header, Outgoing, Topics, Unreadable, attempt_of, header, reply_of, saga_of
from saga.orchestrator import machine
from saga.orchestrator.definition import DefinitionError
from saga.orchestrator.machine import Answered, Busy, Happening, Muddled, Woken
from saga.orchestrator.office import ask
from saga.orchestrator.shares import Shares
from saga.orchestrator.store import Changes, Saga, Store
from saga.transport import Inlet, Outlet, reached
from saga.windows import Hook, WorkerWindow, nowhere

TICK = 0.03  # seconds between two looks at what is due, and the longest wait for a reply
MOST_DUE = 200  # sagas that are woken in one transaction


@dataclass
class Turns:
    """One transaction: what it writes, and what is to be sent when it is committed."""

    changes: Changes = field(default_factory=Changes)
    commands: list[Outgoing] = field(default_factory=list)


class Orchestrator:
    """One worker."""

    def __init__(
        self,
        store: Store,
        inlet: Inlet,
        outlet: Outlet,
        topics: Topics,
        at: Hook = nowhere,
        shares: Shares | None = None,
    ) -> None:
        self.store = store
        self.inlet = inlet
        self.outlet = outlet
        self.topics = topics
        self.at = at
        self.shares = shares
        self._looked = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Raises what the database or the broker raise: whoever started it starts it again."""
        self.recover()
        while not stop.is_set():
            self.step()
        self.outlet.flush()

    def step(self, seconds: float = TICK) -> None:
        """Wake what is due, at most every TICK; wait so long for replies, and handle those that are there."""
        if time.monotonic() - self._looked >= TICK:
            self.wake()
            self._looked = time.monotonic()
            if self.shares:
                self.shares.look()
        if messages := self.inlet.read(seconds):
            self.handle(messages)
        self.outlet.check()

    def recover(self) -> None:
        """Send again what this worker may have died over. Services know what they have done already."""
        commands = []
        for saga in self.store.asked().values():
            try:
                definition = self.store.definition_of(saga)
                if action := machine.current(definition, saga.state):
                    commands.append(ask(self.topics, saga, action, "recovery"))
            except (DefinitionError, Unreadable):  # it is parked when it is due
                continue
        self.outlet.send(commands)

    def wake(self) -> None:
        """Sagas whose time has come."""
        now, woken = time.time(), MOST_DUE
        while woken == MOST_DUE:
            with self._transaction() as turns:
                due = self.store.due(now, MOST_DUE)
                for saga in due.values():
                    # The database rounds: what is due there may be so a microsecond later here.
                    self._turn(turns, saga, Woken(), max(now, saga.state.due or now), "timer")
            woken = len(due)

    def handle(self, messages: Sequence[Message]) -> None:
        """Replies, in one transaction with the place up to which they are read."""
        self.at(WorkerWindow.READ)
        now = time.time()
        with self._transaction() as turns:
            replies = [found for message in messages if (found := self._read(turns, message))]
            sagas = self.store.lock({name for _, name, _ in replies})
            for message, name, happening in replies:
                if name in sagas:
                    cause = header(message, Header.ID)
                    sagas[name] = self._turn(turns, sagas[name], happening, now, cause, message)
                elif not isinstance(happening, Muddled):  # that one is put aside already
                    turns.changes.parked.append((message, f"there is no saga {name!r}"))
            turns.changes.places = reached(messages)

    def _read(self, turns: Turns, message: Message) -> tuple[Message, str, Happening] | None:
        """What a message says to which saga. What nobody can read is put aside, and its saga hears of that."""
        try:
            reply, busy = reply_of(message)
            if busy:
                return message, reply.saga, Busy(reply.action, busy, attempt_of(message))
            return message, reply.saga, Answered(reply.action, reply.refused)
        except Garbled as error:
            turns.changes.parked.append((message, str(error)))
            return message, saga_of(message), Muddled(header(message, Header.CAUSATION), str(error))
        except Unreadable as error:
            turns.changes.parked.append((message, str(error)))
            return None

    def _turn(
        self, turns: Turns, saga: Saga, happening: Happening, now: float, cause: str, message: Message | None = None
    ) -> Saga:
        """Let it happen to the saga, and return what became of it. One that this program cannot read is parked."""
        try:
            definition = self.store.definition_of(saga)
            turn = machine.happen(definition, saga.state, happening, now)
            after = replace(saga, state=turn.state)
            if turn.command:
                turns.commands.append(ask(self.topics, after, turn.command, cause))
        except (DefinitionError, Unreadable) as error:
            turn = machine.park(saga.state, str(error))
            after = replace(saga, state=turn.state)
        turns.changes.notes.append((saga.state.id, turn.note))
        if after != saga:
            turns.changes.sagas[saga.state.id] = after
        if turn.stray and message:
            turns.changes.parked.append((message, f"saga {saga.state.id!r}: {turn.note}"))
        return after

    @contextmanager
    def _transaction(self) -> Iterator[Turns]:
        """What the block finds is written at its end; the commands are sent when that is committed."""
        turns = Turns()
        with self.store.transaction():
            yield turns
            if turns == Turns():
                return
            self.store.save(turns.changes)
            self.outlet.promise(turns.commands)
            self.at(WorkerWindow.SAVED)
        self.at(WorkerWindow.COMMITTED)
        self.outlet.send(turns.commands)
        self.at(WorkerWindow.SENT)
