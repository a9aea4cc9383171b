"""Replay and the outside world: an event is handled as often as we like, its effect must be had once.

An e-mail cannot be rolled back, nor be part of our transaction. So it takes two steps:

1. The projection `Confirmations` only *notes* that a mail is due, under the event's id, in the transaction of its
   checkpoint. Its notes are no read model: a rebuild does not drop them. A replay finds each one there and adds none.
2. The `Gateway` sends what is due and then notes that it was sent. It may die in between, and sends again: sending is
   at-least-once, and nothing on our side can make it more. The event's id goes along as an idempotency key, by which
   the receiver has the effect once, for as long as it remembers keys. (IETF draft "The Idempotency-Key HTTP Header
   Field"; M. Fowler, "Event Sourcing", on gateways for external updates.)

A gateway that is opened on an old log must not write to people about orders of years ago: it begins where it is opened.
No transaction is open while it sends, since readers of the event store would wait for it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import httpx

from shared import home
from shared.postgres import Connection
from sourcing.errors import MISFITS, printable
from sourcing.postgres import COMMAND, TABLE
from sourcing.projection import Change, Projection
from sourcing.windows import EffectWindow, Hook, nowhere

SCHEMA = """
create table effects (
    event_id     uuid primary key,       -- the idempotency key: at most one effect of an event
    number       bigint generated always as identity, -- in which order: a clock may be set back
    body         bytea not null,         -- JSON, what is sent
    requested_at timestamptz not null default clock_timestamp(),
    sent_at      timestamptz,            -- null: due
    attempts     int not null default 0, -- that failed
    error        text not null default ''
);
create index effects_due on effects (attempts, number) where sent_at is null;
-- What was committed when the gateway was opened: that is history to it. What was open then is its business already.
-- In the numbers of the events (shared/home.sql), so that it holds after a move into another cluster, too.
create table effects_since (snapshot pg_snapshot not null);
"""
NOTE = """
insert into effects (event_id, body)
select id, body from unnest(%s::uuid[], %s::xid8[], %s::bytea[]) as due (id, xid, body), effects_since
where not pg_visible_in_snapshot(xid, snapshot)
on conflict (event_id) do nothing
"""
DUE = "select event_id::text, body from effects where sent_at is null order by attempts, number limit %s"
SENT = "update effects set sent_at = clock_timestamp() where event_id = %s"
FAILED = "update effects set attempts = attempts + 1, error = %s where event_id = %s"


@dataclass(frozen=True)
class Effect:
    """A mail that is due."""

    event_id: str
    body: bytes


# Sends a body under a key. Raises httpx.HTTPError when the receiver did not take it, or may not have, and one of
# MISFITS when it can make nothing of the body, or of the answer.
Send = Callable[[bytes, str], None]


def open_gateway(connection: Connection) -> None:
    """Create its tables, and note where in the log its duty begins: here. Raises NotAdopted."""
    since = home.snapshot(connection, TABLE, COMMAND)
    with connection.transaction():
        connection.execute(SCHEMA)
        connection.execute("insert into effects_since values (%s)", [str(since)])


class Effects(Projection):
    """Notes what is due because of events since the gateway was opened, one effect of an event. It sends nothing."""

    tables: ClassVar[tuple[str, ...]] = ()  # none that a rebuild may replace
    schema: ClassVar[str] = ""

    @abstractmethod
    def body(self, change: Change) -> bytes | None:
        """What is to be sent, as JSON; None where nothing is."""

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        due = [
            (change.event.id, str(change.event.xid), body)
            for change in changes
            if (body := self.body(change)) is not None
        ]
        if due:
            connection.execute(NOTE, [list(column) for column in zip(*due, strict=True)], prepare=True)


class Gateway:
    """Sends what is due. Run one: a second one would send the same, under the same keys."""

    def __init__(self, connection: Connection, send: Send, at: Hook = nowhere) -> None:
        self.connection = connection
        self.send = send
        self.at = at

    def step(self, limit: int = 100) -> int:
        """Send some of what is due, what failed least first; returns how many were sent."""
        effects = [Effect(*row) for row in self.connection.execute(DUE, [limit], prepare=True)]
        return sum(self._attempt(effect) for effect in effects)

    def _attempt(self, effect: Effect) -> bool:
        """One effect; a failure is noted, and it stays due, behind those that have failed less often."""
        try:
            self._do(effect)
        except (httpx.HTTPError, httpx.InvalidURL, *MISFITS) as error:
            self.connection.execute(FAILED, [printable(f"{type(error).__name__}: {error}"), effect.event_id])
            return False
        return True

    def _do(self, effect: Effect) -> None:
        self.at(EffectWindow.BEFORE)
        self.send(effect.body, effect.event_id)
        self.at(EffectWindow.BETWEEN)
        self._note(effect)
        self.at(EffectWindow.AFTER)

    def _note(self, effect: Effect) -> None:
        self.connection.execute(SENT, [effect.event_id], prepare=True)
