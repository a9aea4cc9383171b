"""WRONG: an error is taken for "not done". Compare `Repository`, which repeats the very same append."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sourcing.event import Metadata, NewEvent
from sourcing.store import ANY, EventStore

T = TypeVar("T")
Deposit = Callable[[str, str, int], object]  # a command by its id: pay these cents into that account


class Trying(Protocol):
    """A store that may be away."""

    def keep_trying(self, attempt: Callable[[EventStore], T]) -> T:
        """Calls it with the store until there is no error."""
        ...


def append_anew(session: Trying) -> Deposit:
    """Each retry is a new event, with an id of its own, on whatever is there."""

    def deposit(command: str, account: str, cents: int) -> None:
        because = Metadata(causation_id=command)
        session.keep_trying(
            lambda store: store.append(
                f"account-{account}", [NewEvent("Deposited", {"cents": cents}, metadata=because)], ANY
            )
        )

    return deposit
