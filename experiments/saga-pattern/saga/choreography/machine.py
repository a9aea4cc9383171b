"""What each service of the choreography does: which event it hears, what it does then, and what it says.

One small state machine per service, as data. A service's state of a saga is the last thing that it said about it. The
name of an event begins with the service that says it. No service has the whole flow; flow.py puts it together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saga.order import SERVICE, STEPS, Action, Order
from shared.errors import LabError

SUBMITTED = "checkout.submitted"  # what a customer's click comes to; nobody's reaction
ENDS = frozenset({"orders.refused", "orders.cancelled", "orders.completed"})
NOTHING = ""  # the state of a saga of which a service has said nothing yet
Check = Callable[[Order], str]  # the reason for a refusal, or nothing


class MachineError(LabError):
    """A machine that cannot be right; says everything that is wrong with it."""

    def __init__(self, service: str, problems: list[str]) -> None:
        super().__init__(f"{service}: {'; '.join(problems)}")
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Reaction:
    """On hearing `hears`, having last said one of `after`: do `action`, or decide by `check`, and say `says`.

    `refused` is said instead when the service refuses. A reaction without either only says something.
    """

    hears: str
    says: str
    action: Action | None = None
    refused: str = ""
    after: tuple[str, ...] = (NOTHING,)
    check: Check | None = None

    @property
    def said(self) -> tuple[str, ...]:
        """Everything that can come of it."""
        return (self.says, self.refused) if self.refused else (self.says,)


@dataclass(frozen=True)
class Machine:
    """The reactions of one service. Raises MachineError where they cannot be meant."""

    service: str
    reactions: tuple[Reaction, ...]

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise MachineError(self.service, problems)

    @property
    def hears(self) -> frozenset[str]:
        return frozenset(reaction.hears for reaction in self.reactions)

    def reaction(self, state: str, heard: str) -> Reaction | None:
        """What to do in this state, if this event is expected in it."""
        return next((one for one in self.reactions if one.hears == heard and state in one.after), None)

    def _problems(self) -> Iterator[str]:
        taken: set[tuple[str, str]] = set()
        for one in self.reactions:
            for at in ((state, one.hears) for state in one.after):
                if at in taken:
                    yield f"two reactions to {one.hears} after {at[0] or 'nothing'}"
                taken.add(at)
            yield from (f"it says {said}, which is not its own" for said in one.said if emitter(said) != self.service)
            if one.action and SERVICE[one.action] != self.service:
                yield f"{one.action} is done by {SERVICE[one.action]}"
            if (one.check or one.action in STEPS) and not one.refused:
                yield f"its reaction to {one.hears} can be refused, and then says nothing"


def emitter(event: str) -> str:
    """The service that says an event."""
    return event.partition(".")[0]


Machines = tuple[Machine, ...]

ORDERS = Machine(
    "orders",
    (
        Reaction(SUBMITTED, "orders.placed", Action.PLACE, "orders.refused"),
        Reaction("stock.refused", "orders.cancelled", Action.CANCEL, after=("orders.placed",)),
        Reaction("stock.released", "orders.cancelled", Action.CANCEL, after=("orders.placed",)),
        Reaction("shipping.shipped", "orders.completed", after=("orders.placed",)),
    ),
)
STOCK = Machine(
    "stock",
    (
        Reaction("orders.placed", "stock.reserved", Action.RESERVE, "stock.refused"),
        Reaction("payments.refused", "stock.released", Action.RELEASE, after=("stock.reserved",)),
        Reaction("payments.refunded", "stock.released", Action.RELEASE, after=("stock.reserved",)),
    ),
)
PAYMENTS = Machine(
    "payments",
    (
        Reaction("stock.reserved", "payments.charged", Action.CHARGE, "payments.refused"),
        Reaction("shipping.refused", "payments.refunded", Action.REFUND, after=("payments.charged",)),
    ),
)
SHIPPING = Machine(
    "shipping",
    (Reaction("payments.charged", "shipping.shipped", Action.SHIP, "shipping.refused"),),
)
MACHINES: Machines = (ORDERS, STOCK, PAYMENTS, SHIPPING)
