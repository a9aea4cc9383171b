"""What judges the engines: schedules that are the same for all, and verdicts on engines that do it wrong."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from saga.orchestrator.definition import read
from saga.order import STEPS, Action, Order, Outcome, Request
from saga.services.shop import Services
from saga.stage import measuring
from saga.stage.contenders import CONTENDERS, HERE, Contender
from saga.stage.engines import Ended
from saga.stage.fates import Fate, FatedShop
from saga.stage.measuring import NothingToMeasure, goes_on, require_complete
from saga.stage.schedules import Schedule, Verdict, drawn, endure, fates
from saga.stage.traces import lines, noted, noting

from shared.errors import DeadlineExceeded, FaultNotFired
from shared.worker import Worker

[SCHEDULE] = drawn(7, 1, count=4)
# One of its sagas has to end before the worker is killed.
WAITED = next(one for one in drawn(7, 20, count=4) if one.killed_after == 1)


@dataclass
class Immortal:
    """A worker that is none."""

    name: str = "worker-0"

    def start(self) -> None: ...


@dataclass
class Fake:
    """An engine that asks for the first `steps` steps, and says of every saga what it is told to."""

    services: Services
    says: Outcome | None
    steps: int = 0
    name: str = "fake"
    workers: list[Worker] = field(default_factory=lambda: [Immortal()])  # type: ignore[list-item]
    pids: dict[str, int] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)

    def start(self, order: Order) -> None:
        for action in STEPS[: self.steps]:
            self.services(Request(order.id, action, order))
        self.started.add(order.id)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        return {saga: Ended(self.says, 0.1) for saga in sagas if saga in self.started} if self.says else {}


def judged(services: Services, shop: FatedShop, schedule: Schedule, says: Outcome | None, steps: int = 0) -> Verdict:
    return endure(Fake(services, says, steps), shop, [schedule], lambda worker: None, patience=0.1)


def test_a_schedule_is_the_same_whenever_it_is_drawn() -> None:
    assert drawn(7, 20) == drawn(7, 20) != drawn(8, 20)
    assert [schedule.victim(2) for schedule in drawn(7, 20)] == [schedule.victim(2) for schedule in drawn(7, 20)]
    assert {schedule.victim(2) for schedule in drawn(7, 20)} == {0, 1}


def test_one_order_in_ten_schedules_cannot_be_undone() -> None:
    schedules = drawn(7, 20)
    [doomed, _] = [schedule.orders[0] for schedule in schedules if schedule.doomed]
    assert fates(7, schedules).of(doomed, Action.REFUND) is Fate.BROKEN
    assert fates(7, schedules).of(schedules[0].orders[1], Action.SHIP) is Fate.BROKEN


def test_orders_that_are_undone_or_never_begun_are_consistent(services: Services, shop: FatedShop) -> None:
    verdict = judged(services, shop, replace(SCHEDULE, worst=False), Outcome.COMPENSATED)
    assert (verdict.violations, verdict.stuck, verdict.open_at_kill) == ([], [], 0)


def test_an_engine_that_says_more_than_it_did_is_found_out(services: Services, shop: FatedShop) -> None:
    schedule = replace(SCHEDULE, worst=False)
    verdict = judged(services, shop, schedule, Outcome.COMPLETED)
    lies = [f"{order.id}: completed to the engine, compensated in the services" for order in schedule.orders]
    assert sorted(verdict.violations) == sorted(lies)


def test_orders_that_are_left_half_done_are_violations_but_for_the_doomed_one(
    services: Services, shop: FatedShop
) -> None:
    verdict = judged(services, shop, SCHEDULE, Outcome.PARKED, steps=2)
    assert len(verdict.violations) == SCHEDULE.count  # one ahead of them, and all but the doomed one
    assert (len(verdict.stuck), verdict.waiting) == (SCHEDULE.count - 1, list(SCHEDULE.doomed))


def test_an_order_that_waits_may_be_half_done_and_not_charged_twice(services: Services, shop: FatedShop) -> None:
    [doomed] = SCHEDULE.doomed

    def charge_again(worker: Worker) -> None:
        services.connections["payments"].execute("update charges set charged = 2 where order_id = %s", [doomed])

    verdict = endure(Fake(services, Outcome.PARKED, steps=3), shop, [SCHEDULE], charge_again, patience=0.1)
    assert f"{doomed}: charged 2, refunded 0 times" in verdict.violations


@pytest.mark.parametrize("schedule", [SCHEDULE, WAITED], ids=["killed at once", "killed after the first end"])
def test_sagas_that_do_not_end_are_stuck(services: Services, shop: FatedShop, schedule: Schedule) -> None:
    verdict = judged(services, shop, schedule, None)
    assert verdict.stuck == [order.id for order in schedule.orders]
    assert {verdict.outcome(saga) for saga in verdict.stuck} == {None}


def test_sagas_that_only_a_new_worker_moves_on_were_stuck(services: Services, shop: FatedShop) -> None:
    engine = Fake(services, says=None)

    def kill(worker: Worker) -> None:
        engine.says = Outcome.COMPENSATED

    verdict = endure(engine, shop, [WAITED], kill, patience=0.1)
    assert verdict.stuck == [order.id for order in WAITED.orders]
    assert {verdict.outcome(saga) for saga in verdict.stuck} == {Outcome.COMPENSATED}


def test_a_doomed_order_that_is_said_to_be_undone_is_found_out(services: Services, shop: FatedShop) -> None:
    verdict = judged(services, shop, SCHEDULE, Outcome.COMPENSATED)
    assert (verdict.stuck, verdict.waiting) == (list(SCHEDULE.doomed), [])


@dataclass
class Halting(Fake):
    """An engine that ends its first saga, and the others some looks later: when its worker is back, or `without` it."""

    without: bool = False
    back: bool = False
    looks: int = 0

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        first, on = min(self.started), self.back or (self.without and self.looks > 3)
        self.looks += 1
        return {saga: end for saga, end in super().ended(sagas).items() if on or saga == first}


@pytest.mark.parametrize("without", [True, False])
def test_an_engine_that_waits_for_its_dead_worker_does_not_go_on(without: bool, services: Services) -> None:
    engine = Halting(services, Outcome.COMPLETED, without=without)
    [worker] = engine.workers
    worker.start = lambda: setattr(engine, "back", True)  # type: ignore[assignment, method-assign, return-value]
    found = goes_on(engine, SCHEDULE.orders, lambda worker: None, patience=0.1)
    assert (found, engine.back) == (without, True)


def test_a_kill_that_meets_no_open_saga_shows_nothing(services: Services) -> None:
    with pytest.raises(FaultNotFired, match="all 4 sagas of fake had ended"):
        goes_on(Fake(services, Outcome.COMPLETED), SCHEDULE.orders, lambda worker: None, patience=0.1)


def test_a_load_that_is_not_complete_is_not_measured(services: Services, shop: FatedShop) -> None:
    engine = Fake(services, Outcome.COMPLETED, steps=len(STEPS))
    for order in SCHEDULE.orders:
        engine.start(order)
    require_complete(shop, SCHEDULE.count)
    for wrong in (SCHEDULE.count - 1, SCHEDULE.count + 1):
        with pytest.raises(NothingToMeasure, match=f"of {wrong} orders complete"):
            require_complete(shop, wrong)


# What belongs to no engine: it is the same for all, or measures and stages them. The wrong ways are left out.
COMMON = "stage", "order", "reading", "windows", "services"


def imported(path: Path) -> Iterator[str]:
    """Modules of this lab that it imports, as paths within the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "saga":
            inner = "/".join(node.module.split(".")[1:])
            found = {f"{inner}/{alias.name}.py".strip("/") for alias in node.names} | {f"{inner}.py"}
            yield from (name for name in found if (HERE / name).exists())


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_the_code_of_an_engine_imports_nothing_that_is_not_counted(contender: Contender) -> None:
    used = {name for path in contender.code for name in imported(HERE / path) if not name.startswith(COMMON)}
    assert used - set(contender.code) == set()


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_the_code_of_every_engine_is_there_to_be_counted(contender: Contender) -> None:
    assert contender.code_lines > 50
    assert bool(contender.data) == (contender.data_lines > 0)


def test_what_a_process_carries_out_is_noted(tmp_path: Path) -> None:
    with Worker("reader", tmp_path / "log", noting, tmp_path / "ran", read) as worker:
        assert worker.wait() == 0
    assert noted([tmp_path / "ran"]) == {"orchestrator/definition.py"}
    assert lines(["orchestrator/definition.py"]) > lines(["order.py"]) > 50


class Stuck(Fake):
    """An engine whose sagas never end."""

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        return {}


def test_a_saga_that_never_ends_is_not_waited_for_for_ever(
    services: Services, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PATIENCE", 0.05)
    with pytest.raises(DeadlineExceeded, match=f"saga {order.id} of fake"):
        measuring.alone(Stuck(services, Outcome.COMPLETED), order)
