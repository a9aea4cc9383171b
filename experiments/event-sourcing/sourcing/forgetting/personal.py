"""Which fields of which events are a person's, declared as data; sealed at append, opened by who reads with the vault.

What lies in the store is sealed, and so is all that copies it: topics, backups, read models and snapshots that keep
the values as stored. Only a reader that is given the vault sees the text, and must not store it.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared import codec
from shared.errors import NotWritable
from sourcing.errors import SourcingError, UnreadableEvent
from sourcing.event import START, Data, NewEvent, Position, Recorded, data_of, encode
from sourcing.forgetting.vault import BrokenSeal, KeyMissing, Seat, Vault
from sourcing.repository import Reader, as_stored
from sourcing.store import ANY, Capability, EventStore, StreamMetadata


class NotClassified(SourcingError):
    """An event that nobody has said of what in it is personal, or whose it is."""


@dataclass(frozen=True)
class Personal:
    """Of every field of an event, over all versions of its schema, whether it is personal. A new one is neither yet."""

    subject: str = ""  # the field that says whose: a pseudonym, which stays readable
    fields: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()  # not personal; `lines.product` is a field of an object, or of objects in a list


def plain(*fields: str) -> Personal:
    """An event that says nothing of a person but pseudonyms."""
    return Personal(plain=fields)


Declared = Mapping[str, Personal]
# Free text is personal until proven otherwise: the reason of a cancellation is chosen from a list, not typed.
# Stream names, metadata (actor, reason) and subjects are never sealed: only pseudonyms may stand there.
SHOP: Declared = {
    "CustomerRegistered": Personal("customer", ("name", "email")),
    "CustomerMoved": Personal("customer", ("address",)),
    "Purchased": plain("customer", "cents"),
    "OrderPlaced": plain("customer"),
    "LineAdded": plain("product", "quantity", "price", "cents", "currency"),
    "LineRemoved": plain("product"),
    "OrderPaid": plain("cents", "currency"),
    "OrderShipped": plain("carrier"),
    "OrderCancelled": plain("reason", "refund"),
    "AccountOpened": plain("owner"),
    "Deposited": plain("cents"),
    "Withdrawn": plain("cents"),
}


def opening(vault: Vault, declared: Declared, read: Reader = as_stored) -> Reader:
    """A reader that opens what was sealed, then reads on; before upcasting, which may rename what was sealed.

    A forgotten person's fields read as FORGOTTEN. Raises UnreadableEvent where a seal is broken or a key missing.
    """

    def opened(event: Recorded) -> Iterable[tuple[str, Data]]:
        personal = declared.get(event.type)
        if not personal or not personal.fields:
            return read(event)
        try:
            data = codec.encode(open_fields(vault, personal, event.stream, data_of(event)))
        except (BrokenSeal, KeyMissing, NotWritable) as error:
            raise UnreadableEvent(*event[:3], str(error)) from error
        return read(event._replace(data=data))

    return opened


def open_fields(vault: Vault, personal: Personal, stream: str, data: Mapping[str, Any]) -> Data:
    """The data of an event, of a row or of a snapshot that came from this stream, with its personal fields opened.

    Raises what `Vault.open` raises.
    """
    subject = data.get(personal.subject, "")
    if not isinstance(subject, str) or "\0" in subject:
        raise BrokenSeal(f"stream {stream!r}: {personal.subject!r} is {subject!r}, which is nobody")
    opened = {name: vault.open(Seat(stream, subject, name), data[name]) for name in _filled(personal, data)}
    return {**data, **opened}


def seal_fields(vault: Vault, declared: Declared, stream: str, event: NewEvent) -> NewEvent:
    """The same event, its personal fields sealed.

    Raises NotClassified, also for a field that is not declared: a personal one that is new, or has a new name, would be
    stored in the clear. Raises also what `encode` raises, since a sealed value hides what it is, and what `Vault.seal`
    raises.
    """
    personal = declared.get(event.type)
    if personal is None:
        raise NotClassified(f"stream {stream!r}: nobody has said what is personal in an event {event.type!r}")
    if unknown := _unclassified(personal, event.data):
        what = f"whether {', '.join(map(repr, unknown))} in an event {event.type!r} is personal"
        raise NotClassified(f"stream {stream!r}: nobody has said {what}")
    if not personal.fields:
        return event
    subject = event.data.get(personal.subject)
    if not isinstance(subject, str) or not subject:
        raise NotClassified(f"stream {stream!r}: {event.type!r} does not say in {personal.subject!r} whose data it is")
    encode(stream, event)
    filled = _filled(personal, event.data)
    sealed = {name: vault.seal(Seat(stream, subject, name), event.data[name]) for name in filled}
    return replace(event, data={**event.data, **sealed})


def _filled(personal: Personal, data: Mapping[str, Any]) -> list[str]:
    """Personal fields that hold anything. Nothing is told by what is absent, null or an empty text."""
    return [name for name in personal.fields if data.get(name) not in (None, "")]


def _unclassified(personal: Personal, data: Mapping[str, Any]) -> list[str]:
    known = {personal.subject, *personal.fields, *personal.plain}
    open_ = {name: value for name, value in data.items() if name not in (personal.subject, *personal.fields)}
    return sorted(set(_names(open_)) - known)


def _names(value: Any, name: str = "") -> Iterator[str]:
    """Of all that is told: the fields, those of inner objects behind the name of the outer one and a dot."""
    if isinstance(value, Mapping):
        for inner, what in value.items():
            yield from _names(what, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list):
        for what in value:
            yield from _names(what, name)
    else:
        yield name


class SealingStore:
    """Any EventStore, with `append` sealing first. Reads give what is stored."""

    def __init__(self, store: EventStore, vault: Vault, declared: Declared) -> None:
        self.store, self.vault, self.declared = store, vault, declared

    @property
    def name(self) -> str:
        return self.store.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.store.capabilities

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        sealed = [seal_fields(self.vault, self.declared, stream, event) for event in events]
        return self.store.append(stream, sealed, expected)

    def read(
        self, stream: str, *, after: int = 0, limit: int | None = None, backwards: bool = False
    ) -> Iterator[Recorded]:
        return self.store.read(stream, after=after, limit=limit, backwards=backwards)

    def read_all(self, after: Position = START, limit: int = 1000) -> Sequence[Recorded]:
        return self.store.read_all(after, limit)

    def subscribe(self, after: Position, stop: threading.Event) -> Iterator[Recorded]:
        return self.store.subscribe(after, stop)

    def metadata(self, stream: str) -> StreamMetadata:
        return self.store.metadata(stream)

    def set_metadata(self, stream: str, metadata: StreamMetadata) -> None:
        self.store.set_metadata(stream, metadata)

    def delete(self, stream: str, expected: int = ANY) -> None:
        self.store.delete(stream, expected)

    def scavenge(self) -> int:
        return self.store.scavenge()

    def close(self) -> None:
        self.store.close()
