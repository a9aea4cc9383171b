"""Fault schedules drawn from a seed, the same for every engine: what fails in the services, and which worker dies when.

A schedule has orders of its own; what happens to their steps is drawn (fates.py). All schedules of a run are worked off
one after the other by one engine. At the end the services are judged.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from saga.order import STEPS, Action, Order, Outcome, World, orders
from saga.services.invariant import Ending, judge
from saga.services.shop import Shop
from saga.stage.engines import PATIENCE, Ended, Engine, await_ends
from saga.stage.fates import Fate, Fates
from shared.errors import DeadlineExceeded
from shared.wait import until
from shared.worker import Worker

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

    def waiting(self, decides: bool) -> set[str]:
        """The orders that have to wait: the doomed ones and, where nobody decides about them, the doubtful ones."""
        return self.doomed if decides else self.doomed | self.doubtful

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
        """How many of its sagas have ended when the worker dies: less than half of them, and none in the worst."""
        return 0 if self.worst else random.Random(f"{self.seed} when").randrange(self.count // 2)

    def victim(self, workers: int) -> int:
        return random.Random(f"{self.seed} who").randrange(workers)


@dataclass(frozen=True)
class Verdict:
    """What was left of the sagas of all schedules. `open_at_kill`: that had not ended when a worker died."""

    violations: list[str]
    stuck: list[str]
    waiting: list[str]  # in the operator's list, as they should
    outcomes: dict[str, Ended]
    open_at_kill: int

    def outcome(self, saga: str) -> Outcome | None:
        """None for a saga that has not ended."""
        return self.outcomes[saga].outcome if saga in self.outcomes else None


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
    decides: bool = True,
) -> Verdict:
    """Carry out all schedules, and judge. `kill` is given each worker that is to die.

    `decides` says whether the engine has to undo a step of which nobody knows whether it was done, or may leave it to
    an operator.
    """
    # One saga ahead: when it has ended, all processes are there. An attempt may be out of time before they are.
    [first] = orders(schedules[0].seed, 1, schedules[0].world, "first")
    engine.start(first)
    await_ends(engine, [first.id], patience)
    held = {saga for schedule in schedules for saga in schedule.waiting(decides)}
    carried = [_carry_out(engine, schedule, held, kill, patience) for schedule in schedules]
    open_at_kill, stood = sum(len(open_) for open_, _ in carried), set().union(*(still for _, still in carried))
    sagas = [order.id for schedule in schedules for order in schedule.orders]
    found = await_ends(engine, sagas, patience)
    wrong = {saga for saga in sagas if saga not in found or (found[saga].outcome is Outcome.PARKED) != (saga in held)}
    stuck = [saga for saga in sagas if saga in stood | wrong]
    return Verdict(list(_violations(shop, found, held)), stuck, sorted(held - set(stuck)), found, open_at_kill)


def _carry_out(
    engine: Engine, schedule: Schedule, held: set[str], kill: Callable[[Worker], object], patience: float
) -> tuple[set[str], set[str]]:
    """One schedule, to the end but for orders that wait.

    Returns the sagas that were open when the worker died, and those that had stood still until then: they are stuck,
    even if they go on with the worker that is started again.
    """
    # These come to what fails for good before anything is killed: a kill can have them undone on the way there.
    _begin(engine, [order for order in schedule.orders if order.id in held])
    await_ends(engine, {order.id for order in schedule.orders} & held, patience)
    _begin(engine, [order for order in schedule.orders if order.id not in held])
    sagas = {order.id for order in schedule.orders} - held
    enough = f"{schedule.killed_after} sagas of schedule {schedule.seed} to end"
    still = set[str]()
    try:
        until(enough, lambda: len(engine.ended(sagas)) >= schedule.killed_after, patience)
    except DeadlineExceeded:
        still = sagas - engine.ended(sagas).keys()
    victim = engine.workers[schedule.victim(len(engine.workers))]
    kill(victim)
    victim.start()
    left = sagas - engine.ended(sagas).keys()
    await_ends(engine, left, patience)
    return left, still


def _begin(engine: Engine, some: Iterable[Order]) -> None:
    for order in some:
        engine.start(order)


def _violations(shop: Shop, outcomes: dict[str, Ended], held: set[str]) -> Iterator[str]:
    """What is wrong in the services, and where the engine says something else of an order than they do.

    An order that waits is half done until the operator has seen to it. Money and stock hold all the same, and nothing
    has happened to it twice.
    """
    standing = judge(shop)
    yield from (said for said in standing.half_done if said.partition(":")[0] not in held)
    yield from standing.wrong
    for saga, ended in outcomes.items():
        found = standing.endings.get(saga, Ending.COMPENSATED)  # refused at once: nobody has begun anything
        if ended.outcome in AGREE and AGREE[ended.outcome] is not found:
            yield f"{saga}: {ended.outcome} to the engine, {found} in the services"
