"""WRONG: an error is taken for "not done". Compare `Repository`, which repeats the very same append."""

from collections.abc import Callable

from sourcing.event import Data, Metadata, NewEvent
from sourcing.store import ANY, EventStore

KeepTrying = Callable[[Callable[[EventStore], int]], int]  # calls with a store until there is no error


def append_new_event(keep_trying: KeepTrying, stream: str, type_: str, data: Data, because: Metadata) -> None:
    """Each retry is a new event, with an id of its own, on whatever is there."""
    keep_trying(lambda store: store.append(stream, [NewEvent(type_, data, metadata=because)], ANY))
