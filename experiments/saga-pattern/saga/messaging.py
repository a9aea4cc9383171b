"""The messages: commands to the topic of a service, and replies to whatever topic the command names."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from confluent_kafka import Message

from saga.order import SERVICE, Reply, Request
from saga.reading import reader, storable
from shared import codec, kafka
from shared.errors import NotReadable
from shared.servers.server import Endpoint

T = TypeVar("T", Request, Reply)
LONGEST = 1_000  # characters of a command's id: its answer has it twice, and must not be too large for the broker
_request = reader(Request)
_reply = reader(Reply)


class Unreadable(NotReadable):
    """A message that cannot be used. It is parked, whole, with this reason."""


class Garbled(Unreadable):
    """An answer that is none: nobody knows what the service did."""


class Header(StrEnum):
    """What a message says about itself, beside its value."""

    ID = "id"
    CORRELATION = "correlation-id"  # the saga
    CAUSATION = "causation-id"  # the message that gave rise to this one
    REPLY_TO = "reply-to"  # of a command: the topic of its answer
    BUSY = "busy"  # of a reply: not done and not refused either, with the reason


@dataclass(frozen=True)
class Topics:
    """The topics of one orchestrator. All begin with the prefix."""

    prefix: str

    @property
    def replies(self) -> str:
        return f"{self.prefix}.replies"

    @property
    def commands(self) -> dict[str, str]:
        """Service -> its topic."""
        return {service: f"{self.prefix}.{service}" for service in dict.fromkeys(SERVICE.values())}

    def create(self, broker: Endpoint, partitions: int = 4) -> None:
        kafka.create_topics(broker, [*self.commands.values(), self.replies], partitions)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent. Its key is the saga's id: what concerns one saga stays in order."""

    topic: str
    saga: str
    value: bytes
    id: str
    cause: str
    more: tuple[tuple[str, str], ...] = ()

    @property
    def headers(self) -> list[tuple[str, str | bytes | None]]:
        own = (Header.ID, self.id), (Header.CORRELATION, self.saga), (Header.CAUSATION, self.cause)
        return [*own, *self.more]


def command(topics: Topics, request: Request, attempt: int, cause: str) -> Outgoing:
    """The id of the message tells the attempt. The idempotency key, which is the request's id, does not."""
    topic, ident = topics.commands[SERVICE[request.action]], f"{request.id}#{attempt}"
    return Outgoing(topic, request.saga, codec.encode(request), ident, cause, ((Header.REPLY_TO, topics.replies),))


def answer(to: Message, reply: Reply, busy: str = "") -> Outgoing:
    """The answer to a command that `request_of` could read."""
    cause = header(to, Header.ID)
    more = ((Header.BUSY, busy),) if busy else ()
    return Outgoing(header(to, Header.REPLY_TO), reply.saga, codec.encode(reply), f"{cause}/answer", cause, more)


def header(message: Message, name: Header) -> str:
    """A header as text; empty where there is none."""
    return kafka.headers(message).get(name, b"").decode(errors="replace")


def saga_of(message: Message) -> str:
    """The saga that a message is about, as far as its headers or its key tell; empty where they do not."""
    try:
        named = header(message, Header.CORRELATION) or codec.text(kafka.key(message) or b"")
        storable(named)
    except NotReadable:
        return ""
    return named


def request_of(message: Message) -> Request:
    """Raises Unreadable: also when nobody is named who is to have the answer."""
    try:
        request = _body(message, _request)
    except NotReadable as error:
        raise Unreadable(f"not a request: {error}") from error
    if not header(message, Header.REPLY_TO):
        raise Unreadable("the command does not say where its answer goes")
    if len(header(message, Header.ID)) > LONGEST:
        raise Unreadable(f"the command's id is longer than {LONGEST:,} characters")
    return request


def attempt_of(message: Message) -> int:
    """The attempt, counted from 1, that a reply answers: it names its command. Raises Unreadable."""
    cause = header(message, Header.CAUSATION)
    number = cause.rpartition("#")[2]
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise Unreadable(f"the reply does not say which attempt it answers: {cause!r}")
    return int(number)


def reply_of(message: Message) -> tuple[Reply, str]:
    """The reply, and the reason of a service that is busy, or empty. Raises Garbled."""
    busy = header(message, Header.BUSY)
    try:
        storable(busy)
        return _body(message, _reply), busy
    except NotReadable as error:
        raise Garbled(f"not a reply: {error}") from error


def _body(message: Message, read: Callable[[bytes], T]) -> T:
    """What a message says. Raises NotReadable."""
    value = kafka.value(message)
    if value is None:
        raise NotReadable("it has no value, as a tombstone has none")
    found = read(value)
    if not found.saga:
        raise NotReadable("no saga is named")
    return found
