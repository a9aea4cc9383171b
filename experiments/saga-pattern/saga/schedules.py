"""Fault schedules drawn from a seed, the same for every engine: what fails in the services, and which worker dies when.

A schedule has orders of its own, for whose steps `saga.fates` draws what happens. All schedules of a run are worked off
one after the other by one engine. At the end the services are judged.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from saga.engines import Ended, Engine, Outcome, wait
from saga.fates import Fate, Fates
from saga.invariant import Ending, judge
from saga.order import STEPS, Action, Order, World, orders
from saga.services.shop import Shop
from shared.errors import DeadlineExceeded
from shared.wait import until
from shared.worker import Worker

PATIENCE = 60.0  # seconds after which a saga is called stuck
AGREE = {Outcome.COMPLETED: Ending.COMPLETE, Outcome.COMPENSATED: Ending.COMPENSATED}


@dataclass(frozen=True)
class Schedule:
    """Some orders, and a worker that is killed with -9 while they are carried out, and started again.

    With `worst`, the first order is refused at its last step, and its refund fails until somebody mends it; and the
    last step of the second one fails for good, so that nobody knows whether it was done.
    """

    seed: int
    count: int = 10
    worst: bool = False
    world: World = field(default_factory=World)

    @property
    def orders(self) -> list[Order]:
        return list(orders(self.seed, self.count, self.world, "fault"))

    @property
    def doomed(self) -> set[str]:
        """The orders that have to wait for an operator."""
        return {self.orders[0].id} if self.worst else set()

    @property
    def doubtful(self) -> set[str]:
        """The orders of whose last step nobody knows whether it was done."""
        return {self.orders[1].id} if self.worst else set()

    @property
    def fixed(self) -> dict[tuple[str, Action], Fate]:
        """The fates of these. Those of all others are drawn."""
        fates = {(order, action): Fate.FINE for order in self.doomed | self.doubtful for action in STEPS}
        fates |= {(order, Action.SHIP): Fate.BROKEN for order in self.doubtful}
        for order in self.doomed:
            fates |= {(order, Action.SHIP): Fate.REFUSED, (order, Action.REFUND): Fate.BROKEN}
        return fates

    @property
    def killed_after(self) -> int:
        """How many of its sagas have ended when the worker dies: less than half of them."""
        return random.Random(f"{self.seed} when").randrange(self.count // 2)  # noqa: S311

    def victim(self, workers: int) -> int:
        return random.Random(f"{self.seed} who").randrange(workers)  # noqa: S311


@dataclass(frozen=True)
class Verdict:
    """What was left of the sagas of all schedules. `open_at_kill`: that had not ended when a worker died."""

    violations: list[str]
    stuck: list[str]
    waiting: list[str]  # in the operator's list, as they should
    outcomes: dict[str, Ended]
    open_at_kill: int


def drawn(seed: int, number: int, count: int = 10, worst: int = 10) -> list[Schedule]:
    """So many schedules of so many orders; every `worst`-th one, the first included, is of the worst kind."""
    return [Schedule(1000 * seed + index, count, index % worst == 0) for index in range(number)]


def fates(seed: int, schedules: Iterable[Schedule]) -> Fates:
    """What the services of the shop are to be given."""
    return Fates(seed, fixed={place: fate for schedule in schedules for place, fate in schedule.fixed.items()})


def endure(
    engine: Engine,
    shop: Shop,
    schedules: Sequence[Schedule],
    kill: Callable[[Worker], object],
    patience: float = PATIENCE,
) -> Verdict:
    """Carry out all schedules, and judge. `kill` is given each worker that is to die."""
    open_at_kill = sum(_carry_out(engine, schedule, kill, patience) for schedule in schedules)
    sagas = [order.id for schedule in schedules for order in schedule.orders]
    doomed = {saga for schedule in schedules for saga in schedule.doomed}
    found = await_ends(engine, sagas, patience)
    stuck = [saga for saga in sagas if saga not in found or (found[saga].outcome is Outcome.PARKED) != (saga in doomed)]
    waiting = sorted(doomed - set(stuck))
    return Verdict(list(_violations(shop, found, doomed)), stuck, waiting, found, open_at_kill)


def await_ends(engine: Engine, sagas: Iterable[str], patience: float = PATIENCE) -> dict[str, Ended]:
    """Those of these sagas that end in time: a saga that is stuck is a finding, and no reason to stop."""
    waited = list(sagas)
    try:
        return wait(engine, waited, patience)
    except DeadlineExceeded:
        return engine.ended(waited)


def _carry_out(engine: Engine, schedule: Schedule, kill: Callable[[Worker], object], patience: float) -> int:
    """One schedule, to the end but for its doomed order; returns how many sagas were open when the worker died."""
    for order in schedule.orders:
        engine.start(order)
    sagas = {order.id for order in schedule.orders} - schedule.doomed
    enough = f"{schedule.killed_after} sagas of schedule {schedule.seed} to end"
    until(enough, lambda: len(engine.ended(sagas)) >= schedule.killed_after, patience)
    victim = engine.workers[schedule.victim(len(engine.workers))]
    kill(victim)
    victim.start()
    left = sagas - engine.ended(sagas).keys()
    await_ends(engine, left, patience)
    return len(left)


def _violations(shop: Shop, outcomes: dict[str, Ended], doomed: set[str]) -> Iterator[str]:
    """What is wrong in the services, and where the engine says something else of an order than they do.

    A doomed order is half done until the operator has seen to it. Money and stock hold all the same.
    """
    standing = judge(shop)
    yield from (violation for violation in standing.violations if violation.partition(":")[0] not in doomed)
    for saga, ended in outcomes.items():
        found = standing.endings.get(saga, Ending.COMPENSATED)  # refused at once: nobody has begun anything
        if ended.outcome in AGREE and AGREE[ended.outcome] is not found:
            yield f"{saga}: {ended.outcome} to the engine, {found} in the services"
