"""What judges the engines: schedules that are the same for all, and verdicts on engines that do it wrong."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from saga.contenders import CONTENDERS, Contender
from saga.engines import Ended, Outcome
from saga.fates import Fate
from saga.measuring import code_lines
from saga.order import STEPS, Action, Order, Request
from saga.schedules import Schedule, Verdict, drawn, endure, fates
from saga.services.shop import Services, Shop

from shared.worker import Worker

[SCHEDULE] = drawn(7, 1, count=4)


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


def judged(services: Services, shop: Shop, schedule: Schedule, says: Outcome | None, steps: int = 0) -> Verdict:
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


def test_orders_that_are_undone_or_never_begun_are_consistent(services: Services, shop: Shop) -> None:
    verdict = judged(services, shop, replace(SCHEDULE, worst=False), Outcome.COMPENSATED)
    assert (verdict.violations, verdict.stuck, verdict.open_at_kill) == ([], [], 0)


def test_an_engine_that_says_more_than_it_did_is_found_out(services: Services, shop: Shop) -> None:
    schedule = replace(SCHEDULE, worst=False)
    verdict = judged(services, shop, schedule, Outcome.COMPLETED)
    lies = [f"{order.id}: completed to the engine, compensated in the services" for order in schedule.orders]
    assert sorted(verdict.violations) == sorted(lies)


def test_orders_that_are_left_half_done_are_violations_but_for_the_doomed_one(services: Services, shop: Shop) -> None:
    verdict = judged(services, shop, SCHEDULE, Outcome.PARKED, steps=2)
    assert len(verdict.violations) == SCHEDULE.count - 1
    assert (len(verdict.stuck), verdict.waiting) == (SCHEDULE.count - 1, list(SCHEDULE.doomed))


def test_sagas_that_do_not_end_are_stuck(services: Services, shop: Shop) -> None:
    waited = replace(SCHEDULE, seed=next(seed for seed in range(99) if replace(SCHEDULE, seed=seed).killed_after == 0))
    assert judged(services, shop, waited, None).stuck == [order.id for order in waited.orders]


def test_a_doomed_order_that_is_said_to_be_undone_is_found_out(services: Services, shop: Shop) -> None:
    verdict = judged(services, shop, SCHEDULE, Outcome.COMPENSATED)
    assert (verdict.stuck, verdict.waiting) == (list(SCHEDULE.doomed), [])


def test_lines_of_code_are_neither_comments_nor_docstrings_nor_brackets(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        '"""Doc\nstring."""\n\n# comment\nX = [\n    1,\n]\n\n\ndef f() -> None:\n    "doc"\n    g(X)\n'
    )
    assert code_lines([tmp_path / "module.py"]) == len(["X = [", "1,", "def f", "g(X)"])


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_the_code_of_every_engine_is_there_to_be_counted(contender: Contender) -> None:
    assert contender.code_lines > 50
    assert bool(contender.data) == (contender.data_lines > 0)
