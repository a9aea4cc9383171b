"""Sagas whose worker is killed in a window, sagas under which the server is, and what the popular ways make of it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from saga.engines.temporal.messages import Limits, Progress
from saga.order import STEPS, UNDO, Action, Order
from saga.services.invariant import Standing, judge
from saga.services.shop import Shop
from saga.stage.fates import Fate
from saga.stage.temporal.held import Gate, HeldActivities
from saga.stage.temporal.stage import Case, Stage, answered, order, slug, visible
from saga.windows import EffectWindow
from saga.wrong.temporal_mistakes import CompensateAfter, Keyless
from shared.experiment import Run
from shared.faults import Faults
from shared.wait import until

BACKWARD = tuple(UNDO[step] for step in reversed(STEPS))
# How many requests of its saga have passed a window when it is this one's turn. Where a compensation is to be killed,
# the saga's SHIP is broken: it passes no window, and since nobody knows whether it was done, it is recalled.
TURN = dict(zip(STEPS, range(1, 5), strict=True)) | dict(zip(BACKWARD, range(4, 8), strict=True))
ONE, FEW = Limits(attempts=1), Limits(attempts=3)
AT_ONCE = 8  # processes that die and are followed by others at the same time
RIGHT, AFTER, KEYLESS = "as it is", "compensation registered after the call", "no idempotency key"
# In the first two the killed attempt at the charge is the only one: nobody will ever know what became of it.
WAYS: dict[str, tuple[Limits, dict[str, Any]]] = {
    RIGHT: (ONE, {}),
    AFTER: (ONE, {"workflow": CompensateAfter}),
    KEYLESS: (FEW, {"activities": Keyless}),
}
Chosen = dict[Action, Order]  # a saga for each action in which something is killed
Broken = dict[tuple[str, Action], Fate]


def chosen(name: str, actions: Iterable[Action]) -> Chosen:
    """An order for each of the actions."""
    return {action: order(f"{slug(name)}-{action}", number) for number, action in enumerate(actions)}


def broken(orders: Iterable[Order], action: Action) -> Broken:
    """The fates of orders in which this action never succeeds, until it is repaired."""
    return {(one.id, action): Fate.BROKEN for one in orders}


def compensated(orders: Iterable[Chosen]) -> Broken:
    """What makes those sagas compensate in which a compensation is killed."""
    return broken((one for found in orders for action, one in found.items() if action in BACKWARD), Action.SHIP)


@dataclass(frozen=True)
class Killed:
    """Sagas that have ended, and in each an action that was interrupted by a death."""

    stage: Stage
    shop: Shop
    orders: list[tuple[Action, Order]]
    seconds: dict[str, list[float]]  # by window: until sagas had ended
    seen: dict[EffectWindow, dict[Action, set[str]]] = field(
        default_factory=dict
    )  # services in which an order was seen


def kill_workers(run: Run) -> Killed:
    """For each action and window a saga, whose worker dies there and is followed by another."""
    stage = Stage(run, run.endpoints["temporal"], "workers")
    doomed = run.pick((Action.CHARGE, Action.REFUND), tuple(TURN), tuple(TURN))
    rounds = [(window, number) for window in EffectWindow for number in range(run.pick(1, 1, 2))]
    orders = {turn: chosen(f"worker-{turn[0]}-{turn[1]}", doomed) for turn in rounds}
    shop = stage.shop("worker", compensated(orders.values()))
    cases = [
        Case(one, window, TURN[action], stage.job(shop, one.id), FEW)
        for (window, _), found in orders.items()
        for action, one in found.items()
    ]
    seconds: dict[str, list[float]] = {window: [] for window in EffectWindow}
    for first in range(0, len(cases), AT_ONCE):
        batch = cases[first : first + AT_ONCE]
        for case, measured in zip(batch, stage.survive(batch, run.history_file("worker")), strict=True):
            seconds[case.window].append(measured)
    return Killed(stage, shop, [pair for found in orders.values() for pair in found.items()], seconds)


def kill_server(run: Run) -> Killed:
    """All activities stand in the same window when the server dies, and are done while it is dead."""
    server = run.own("temporal")
    stage = Stage(run, server.endpoint, "own")
    windows = run.pick((EffectWindow.AFTER,), tuple(EffectWindow), tuple(EffectWindow))
    orders = {window: chosen(f"server-{window}", TURN) for window in windows}
    gates = {
        window: Gate(run.folder / "gates" / slug(window), window, {one.id: action for action, one in found.items()})
        for window, found in orders.items()
    }
    shop, faults = stage.shop("server", compensated(orders.values())), Faults(run.recorder("server", "experiment"))
    held = partial(HeldActivities, gates=tuple(gates.values()))
    seen, seconds = dict[EffectWindow, dict[Action, set[str]]](), dict[str, list[float]]()
    with stage.working([job := stage.job(shop, "server", activities=held, threads=len(TURN) + 4)]):
        for window, found in orders.items():
            stage.start(found.values(), job.queue, FEW)
            await_held(gates[window])
            seen[window] = {action: visible(shop, one) for action, one in found.items()}
            with faults.down(server):
                gates[window].open()
                await_answers(shop, found)
            began = time.monotonic()
            stage.ended(found.values())
            seconds[window] = [time.monotonic() - began]
    return Killed(stage, shop, [pair for found in orders.values() for pair in found.items()], seconds, seen)


def await_held(gate: Gate) -> None:
    until(f"{len(gate.holds)} activities to stand {gate.window}", lambda: gate.held() == gate.holds.keys(), 60)


def await_answers(shop: Shop, orders: Chosen) -> None:
    """Their effects are there, and there is no server to be told of it."""
    until("effects without a server", lambda: all(answered(shop, one, action) for action, one in orders.items()))


@dataclass(frozen=True)
class Lost:
    """Sagas whose worker died when the customer was charged and before anybody knew, for each of WAYS."""

    count: int
    standings: dict[str, Standing]
    ended: dict[str, dict[str, Progress]]


def lose_outcomes(run: Run) -> Lost:
    """The same kill for the right way and the wrong ones."""
    stage, count = Stage(run, run.endpoints["temporal"], "unknown"), run.pick(1, 2, 4)
    shops = {way: stage.shop(f"unknown {number}") for number, way in enumerate(WAYS)}
    cases = {way: [charged(stage, shops[way], way, number) for number in range(count)] for way in WAYS}
    stage.survive([case for found in cases.values() for case in found], run.history_file("unknown"))
    ended = {way: stage.ended(case.order for case in found) for way, found in cases.items()}
    return Lost(count, {way: judge(shop) for way, shop in shops.items()}, ended)


def charged(stage: Stage, shop: Shop, way: str, number: int) -> Case:
    limits, what = WAYS[way]
    one = order(f"{slug(way)}-{number}", number)
    return Case(one, EffectWindow.AFTER, TURN[Action.CHARGE], stage.job(shop, one.id, **what), limits)
