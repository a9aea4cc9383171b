"""A service's memory: its state of each saga, what it has heard, what it has to say, and what it could not handle."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saga.choreography.machine import NOTHING, emitter
from saga.reading import without_nul
from saga.transport import OFFSETS
from shared import codec
from shared.errors import NotReadable
from shared.event import Event
from shared.postgres import Connection

SCHEMA = Path(__file__).with_name("schema.sql")
LOOK = """
select (select said from saga_states where saga = %s), exists (select from handled where event_id = %s)
"""
# One round trip. All parts happen, or none: it is one statement in the transaction of the effect.
MOVE = """
with heard_now as (insert into handled values (%(heard)s))
insert into saga_states values (%(saga)s, %(said)s)
on conflict (saga) do update set said = excluded.said, at = excluded.at
"""
SAY = """
with heard_now as (insert into handled values (%(heard)s)), moved as (
    insert into saga_states values (%(saga)s, %(said)s)
    on conflict (saga) do update set said = excluded.said, at = excluded.at
)
insert into outbox (topic, key, value, headers) values (%(topic)s, %(key)s, %(value)s, %(headers)s)
"""
UNSENT = "select position, topic, key, value, headers from outbox where sent_at is null order by position limit 500"
SENT = "update outbox set sent_at = clock_timestamp() where position = any(%s)"
# Tried again after 50 ms, 100 ms, ... 1 s; no more than so many times.
HOLD = """
insert into held (place, saga, key, value, headers, due, reason)
values (%(place)s, %(saga)s, %(key)s, %(value)s, %(headers)s,
        case when %(again)s then clock_timestamp() + interval '50 ms' end, %(reason)s)
on conflict (place) do update set attempts = held.attempts + 1, reason = excluded.reason,
    due = case when %(again)s and held.attempts + 1 < %(most)s
               then clock_timestamp() + least(interval '50 ms' * 2 ^ held.attempts, interval '1 s') end
"""
DUE = "select place, key, value, headers from held where due <= clock_timestamp() order by due limit 100"
MOST_ATTEMPTS = 10
# A row of our own that nobody can read waits for an operator, and those behind it do not.
SPOILT = "update held set due = null, reason = %s where place = %s"
TAKE_OUT = """
with taken as (update outbox set sent_at = clock_timestamp() where position = %s returning *)
insert into held (place, saga, key, value, headers, reason)
select 'outbox/' || position, key, convert_to(key, 'UTF8'), value, headers, %s from taken
"""

_headers = codec.decoder(dict[str, bytes])


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it came, from Kafka or from those that are held."""

    place: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event that is to be sent."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes]
    position: int = 0  # in the outbox


@dataclass(frozen=True)
class Held:
    """A line of the operator's list, or an event that will be tried again by itself."""

    place: str
    saga: str
    attempts: int
    waits: bool  # for an operator
    reason: str


def create(connection: Connection) -> None:
    connection.execute(SCHEMA.read_text())
    connection.execute(OFFSETS)


def look(connection: Connection, saga: str, event: str) -> tuple[str, bool]:
    """The service's state of a saga, and whether it has handled this event."""
    row = connection.execute(LOOK, [saga, event], prepare=True).fetchone()
    return (row[0] or NOTHING, row[1]) if row else (NOTHING, False)


def outgoing(prefix: str, event: Event) -> Envelope:
    """The event as it goes to the topic of the service that says it."""
    message = event.to_kafka()
    value = message.value if isinstance(message.value, bytes) else b""
    headers = {name: bytes(content) for name, content in message.headers.items()}
    return Envelope(topic(prefix, event.type), event.partition_key, value, headers)


def topic(prefix: str, event: str) -> str:
    """The topic of an event: every service has one for all that it says."""
    return f"{prefix}.{emitter(event)}"


def topics(prefix: str, events: Iterable[str]) -> list[str]:
    """The topics of all who say one of these events."""
    return sorted({topic(prefix, event) for event in events})


def move(connection: Connection, saga: str, heard: Event, said: Event) -> None:
    """Note that an event is handled, and what was said because of it."""
    connection.execute(MOVE, {"heard": heard.id, "saga": saga, "said": said.type}, prepare=True)


def say(connection: Connection, saga: str, heard: Event, said: Event, message: Envelope) -> None:
    """The same, and the event goes into the outbox."""
    words = {"heard": heard.id, "saga": saga, "said": said.type, "topic": message.topic, "key": message.key}
    connection.execute(SAY, {**words, "value": message.value, "headers": _packed(message.headers)}, prepare=True)


def unsent(connection: Connection) -> list[Envelope]:
    """What is to be sent, in its order. A row that cannot be read is held, and not among it."""
    while rows := connection.execute(UNSENT, prepare=True).fetchall():
        if found := list(_sendable(connection, rows)):
            return found
    return []


def _sendable(connection: Connection, rows: Sequence[tuple[int, str, str, bytes, bytes]]) -> Iterator[Envelope]:
    for position, topic, key, value, headers in rows:
        try:
            yield Envelope(topic, key, value, _headers(headers), position)
        except NotReadable as error:
            connection.execute(TAKE_OUT, [position, f"its headers cannot be read: {error}"])


def mark_sent(connection: Connection, messages: Sequence[Envelope]) -> None:
    connection.execute(SENT, [[message.position for message in messages]], prepare=True)


def hold(connection: Connection, letter: Letter, reason: str, again: bool) -> None:
    """Keep a message that was not handled, as it came: to be tried again, or for an operator."""
    saga = letter.headers.get("ce_correlationid", b"").decode(errors="replace")
    content = {"place": letter.place, "key": letter.key, "value": letter.value, "headers": _packed(letter.headers)}
    words = {"saga": without_nul(saga), "reason": without_nul(reason)}
    connection.execute(HOLD, {**content, **words, "again": again, "most": MOST_ATTEMPTS}, prepare=True)


def due(connection: Connection) -> list[Letter]:
    """Held messages whose time has come. One that cannot be read waits for an operator instead."""
    letters = []
    for place, key, value, headers in connection.execute(DUE, prepare=True).fetchall():
        try:
            letters.append(Letter(place, key, value, _headers(headers), held=True))
        except NotReadable as error:
            connection.execute(SPOILT, [f"its headers cannot be read: {error}", place])
    return letters


def release(connection: Connection, letter: Letter) -> None:
    """It is handled."""
    discard(connection, letter.place)


def held(connection: Connection) -> list[Held]:
    """Everything that is held, in the order of its places."""
    rows = connection.execute("select place, saga, attempts, due is null, reason from held order by place").fetchall()
    return [Held(*row) for row in rows]


def retry(connection: Connection, place: str) -> bool:
    """An operator's word: try it again now. False when nothing is held at that place."""
    again = "update held set due = clock_timestamp(), attempts = 1 where place = %s"
    return connection.execute(again, [place]).rowcount > 0


def discard(connection: Connection, place: str) -> bool:
    """An operator's word: nobody needs it. False when nothing is held at that place."""
    return connection.execute("delete from held where place = %s", [place]).rowcount > 0


def _packed(headers: Mapping[str, bytes]) -> bytes:
    """As `_headers` reads them."""
    return codec.encode({name: base64.b64encode(content).decode() for name, content in headers.items()})
