"""How an event store is asked. questions.py has the questions; experiment 04 asks, and tests/test_contract.py.

A question that needs a capability is asked of those that declare it; of the others, that they refuse (NotSupported).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from shared.errors import LabError
from sourcing.errors import NotSupported
from sourcing.event import START, NewEvent, Position, Recorded, data_of
from sourcing.store import NO_STREAM, Capability, EventStore
from sourcing.stores import Address

PATIENCE = 20.0  # seconds for an event to come


class ContractBroken(LabError):
    """The store does not do what the question asks."""


@dataclass(frozen=True)
class Subject:
    """A store that is asked: a handle, how to open another one, and a stream that nobody has used."""

    store: EventStore
    open: Callable[[], EventStore]
    stream: str

    def other(self, name: str) -> str:
        """A second stream of the same category."""
        return f"{self.stream}.{name}"


@contextmanager
def subjects(address: Address) -> Iterator[Callable[[str], Subject]]:
    """A function from an unused stream's name to the subject; all handles that it opens are closed at the end."""
    with ExitStack() as handles:

        def another() -> EventStore:
            handle = address.open()
            handles.callback(handle.close)
            return handle

        store = another()
        # A store that has one owner is shared by those for whom it writes: a second one would take it over.
        shared = getattr(store, "one_owner", False)
        yield lambda stream: Subject(store, (lambda: store) if shared else another, stream)


Question = Callable[[Subject], None]
QUESTIONS: dict[Question, Capability | None] = {}


def asks(needs: Capability | None = None) -> Callable[[Question], Question]:
    """Decorator: this is a question, for stores with that capability."""

    def note(question: Question) -> Question:
        QUESTIONS[question] = needs
        return question

    return note


def ask(question: Question, subject: Subject) -> None:
    """Raises ContractBroken, or whatever the store raises."""
    needs = QUESTIONS[question]
    if needs is None or needs in subject.store.capabilities:
        question(subject)
    else:
        refuses(needs, subject)


def refuses(needs: Capability, subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    attempts: dict[Capability, Callable[[], object]] = {
        Capability.EXPECTED_VERSION: lambda: store.append(stream, events(1), NO_STREAM),
        Capability.BACKWARDS: lambda: list(store.read(stream, backwards=True)),
        Capability.READ_ALL: lambda: store.read_all(),
        Capability.SUBSCRIBE: lambda: next(store.subscribe(START, threading.Event())),
        Capability.METADATA: lambda: store.metadata(stream),
        Capability.TRUNCATE: lambda: store.scavenge(),
        Capability.DELETE: lambda: store.delete(stream),
    }
    if needs is Capability.TRANSACTION:  # a thing that has no call of its own
        ensure(not hasattr(store, "connection"), f"{store.name} has a connection to join, and does not say so")
    else:
        with raises(NotSupported):
            attempts[needs]()


def ensure(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractBroken(otherwise)


@contextmanager
def raises(kind: type[Exception], **fields: object) -> Iterator[None]:
    """The block must raise that error, with these fields."""
    try:
        yield
    except kind as error:
        found = {name: getattr(error, name) for name in fields}
        ensure(found == fields, f"{kind.__name__} says {found}, it should say {fields}")
        return
    raise ContractBroken(f"{kind.__name__} was not raised")


def events(count: int, first: int = 1) -> list[NewEvent]:
    return [NewEvent("Counted", {"n": number}) for number in range(first, first + count)]


def numbers(found: Iterator[Recorded] | Sequence[Recorded]) -> list[int]:
    return [data_of(event)["n"] for event in found]


def end_of(store: EventStore) -> Position:
    """The place of the last event that can be read now."""
    after = START
    while page := store.read_all(after):
        after = page[-1].place
    return after
