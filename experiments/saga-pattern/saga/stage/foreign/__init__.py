"""Orders that another program wrote wrongly, begun on any engine between two that are fine.

Each kind stopped somebody's service for ever: it is read, the reader dies, whoever starts next reads it again.
Logprep#640 (Latin-1), msgspec#646 (deep JSON), eliza#18079 (half a surrogate pair), nab#1007 (NaN).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from saga.order import Order, Outcome
from saga.stage.engines import Ended, Engine, wait
from shared import codec
from shared.wait import until

DEPTH = 1_500  # more than Python's parsers go down, and no more text than a variable of Camunda's may have


class Foreign(Protocol):
    """Another program, as it speaks to one engine."""

    def begin(self, saga: str, order: bytes) -> None:
        """Begin a saga with these bytes for its order."""
        ...

    def reasons(self) -> list[str]:
        """Why each of these sagas waits, as an operator reads it."""
        ...


@dataclass(frozen=True)
class Played:
    """How the good ones ended, and why each of the odd ones waits."""

    ended: dict[str, Ended]
    reasons: list[str]
    odd: int

    @property
    def hold(self) -> bool:
        """Whether all good ones are complete, and every odd one waits with a reason of its own."""
        complete = all(one.outcome is Outcome.COMPLETED for one in self.ended.values())
        return complete and len(self.reasons) == self.odd and all(self.reasons)


def odd(order: Order) -> dict[str, bytes]:
    """The order, each time with one thing wrong with it."""
    good = codec.encode(order)
    customer, cents = f'"{order.customer}"'.encode(), f'"cents":{order.cents}'.encode()
    return {
        "a Latin-1 byte": good.replace(customer, b'"\xfc-customer"'),
        "deep nesting": good[:-1] + b',"x":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        "half a surrogate pair": good.replace(customer, rb'"\ud83d"'),
        "a NUL": good.replace(customer, rb'"\u0000"'),
        "no end": good[:-1],
        "a text for a number": good.replace(cents, b'"cents":"5 EUR"'),
        "NaN": good.replace(cents, b'"cents":NaN'),
        "more than a double": good.replace(cents, b'"cents":1e400'),
        "nothing": b"",
    }


def between(engine: Engine, foreign: Foreign, good: Sequence[Order], seconds: float = 120.0) -> Played:
    """Begin the first good one, then one odd saga of each kind, then the other good ones. Raises DeadlineExceeded."""
    first, *others = good
    engine.start(first)
    wrong = odd(first)
    for number, what in enumerate(wrong.values()):
        foreign.begin(f"odd-{first.id}-{number}", what)
    for order in others:
        engine.start(order)
    ended = wait(engine, [order.id for order in good], seconds)
    reasons = until(
        "the odd ones to wait", lambda: found if len(found := foreign.reasons()) >= len(wrong) else [], seconds
    )
    return Played(ended, reasons, len(wrong))


def as_text(order: bytes) -> str:
    """For programs that speak text: what is no UTF-8 is half a character there, written as JSON's escape of it."""
    return order.decode(errors="surrogateescape").encode("ascii", "backslashreplace").decode()
