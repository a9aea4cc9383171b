"""What happens to a step, drawn from a seed: the same schedule for every engine, whoever retries how often.

A fate belongs to (order, action). What has to be counted, such as the failures before a success, is counted in the
service's database: the process that fails may be another one than the one that tries again.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from saga.order import STEPS, Action, Order, Request
from shared.errors import LabError
from shared.postgres import Connection


class Fate(StrEnum):
    """How a step goes."""

    FINE = "fine"
    REFUSED = "refused"  # the business says no, and will always
    TRANSIENT = "transient"  # fails twice before anything is done
    SLOW = "slow"
    ANSWER_LOST = "answer lost"  # done, and its first answer never arrives
    BROKEN = "broken"  # fails before anything is done until an operator mends it


class TransientError(LabError):
    """The service could not do it now; nothing was done, or nobody knows. Asking again is right."""


class AnswerLost(TransientError):
    """It was done, and whoever asked is not told."""


COUNT = """
insert into attempts (request_id, number) values (%s, 1)
on conflict (request_id) do update set number = attempts.number + 1 returning number
"""
MENDED = "select 1 from mended where request_id = %s"
FAILURES = 2  # of a transient fate
PAUSE = 0.05  # seconds of a slow one
# Share of each fate among steps. Only steps can be refused: a compensation that could be would not be one.
STEP_FATES = {Fate.REFUSED: 0.06, Fate.TRANSIENT: 0.08, Fate.SLOW: 0.05, Fate.ANSWER_LOST: 0.06}
UNDO_FATES = {Fate.TRANSIENT: 0.15, Fate.ANSWER_LOST: 0.15}


@dataclass(frozen=True)
class Fates:
    """The schedule of one run. `fixed` overrides the draw for an (order id, action)."""

    seed: int = 0
    steps: Mapping[Fate, float] = field(default_factory=lambda: STEP_FATES)
    undos: Mapping[Fate, float] = field(default_factory=lambda: UNDO_FATES)
    fixed: Mapping[tuple[str, Action], Fate] = field(default_factory=dict)

    def of(self, order: Order, action: Action) -> Fate:
        if (order.id, action) in self.fixed:
            return self.fixed[order.id, action]
        left = random.Random(f"{self.seed} {order.id} {action}").random()
        for fate, share in (self.steps if action in STEPS else self.undos).items():
            left -= share
            if left < 0:
                return fate
        return Fate.FINE

    def before(self, connection: Connection, request: Request) -> str:
        """What happens before the service does anything: the reason of a refusal, or empty. Raises TransientError."""
        match self.of(request.order, request.action):
            case Fate.REFUSED:
                return f"{request.action}: the business refuses order {request.order.id}"
            case Fate.TRANSIENT if _count(connection, request) <= FAILURES:
                raise TransientError(f"{request.id}: the service is busy")
            case Fate.BROKEN if connection.execute(MENDED, [request.id]).fetchone() is None:
                raise TransientError(f"{request.id}: the service is broken")
            case Fate.SLOW:
                time.sleep(PAUSE)
        return ""

    def after(self, connection: Connection, request: Request) -> None:
        """What happens when it is done and committed. Raises AnswerLost."""
        if self.of(request.order, request.action) is Fate.ANSWER_LOST and _count(connection, request) == 1:
            raise AnswerLost(f"{request.id}: done, and the answer is lost")


KIND = Fates(steps={}, undos={})  # nothing ever goes wrong


def mend(connection: Connection, request_id: str) -> None:
    """The operator's repair of a BROKEN step, in the service's database."""
    connection.execute("insert into mended values (%s) on conflict do nothing", [request_id])


def _count(connection: Connection, request: Request) -> int:
    row = connection.execute(COUNT, [request.id]).fetchone()
    return int(row[0]) if row else 0
