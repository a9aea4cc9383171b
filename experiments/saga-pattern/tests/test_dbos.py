"""The saga by DBOS on a real Postgres: what becomes of an order, whatever fails, and whoever dies."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql
from saga.order import STEPS, Action, Order, Outcome, World, orders
from saga.services import shop as shops
from saga.services.invariant import Ending, Standing, judge
from saga.stage.engines import Site, drive, wait
from saga.stage.engines.dbos import Dbos, once_doomed, opened
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.fates import create as create_shop
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow, WorkerWindow

from shared.errors import ConfigurationError
from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.worker import Worker

FINE, REFUSED, TRANSIENT, LOST, BROKEN, STUCK, POISON = orders(11, 7, World())
UNDONE = [Action.REFUND, Action.RELEASE, Action.CANCEL]
FATES = Fates(
    seed=3,
    fixed={
        **{(order.id, action): Fate.FINE for order in orders(11, 7, World()) for action in Action},
        (REFUSED.id, Action.SHIP): Fate.REFUSED,
        (TRANSIENT.id, Action.CHARGE): Fate.TRANSIENT,
        (LOST.id, Action.CHARGE): Fate.ANSWER_LOST,
        (BROKEN.id, Action.SHIP): Fate.BROKEN,
        (STUCK.id, Action.SHIP): Fate.REFUSED,
        (STUCK.id, Action.RELEASE): Fate.BROKEN,
    },
)
Making = Callable[..., Site]


@pytest.fixture(scope="module")
def making(postgres: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Making]:
    """Sites with a shop of their own: making(workers=2)."""
    names: list[str] = []

    def make(workers: int, kill: RecordedKill | None = None) -> Site:
        names.append(f"lab_test_{uuid4().hex[:10]}")
        folder = tmp_path_factory.mktemp("dbos")

        def worker(name: str, *arguments: object) -> Worker:
            return Worker(name, folder / f"{name}.log", *arguments).start()  # type: ignore[arg-type]

        shop = create_shop(postgres, names[-1], FATES)
        return Site(shop, names[-1], {"postgres": postgres}, folder, worker, workers, kill)

    yield make
    for name in names:
        shops.drop(postgres, name)


@pytest.fixture(scope="module")
def site(making: Making) -> Site:
    return making(workers=2)


@pytest.fixture(scope="module")
def engine(site: Site) -> Iterator[Dbos]:
    """DBOS with two workers, which all tests of this file share: every order has its own fate."""
    with opened(site, undo_attempts=3) as up:
        yield up


def carry_out(engine: Dbos, order: Order) -> Outcome:
    engine.start(order)
    return wait(engine, [order.id])[order.id].outcome


def asked(engine: Dbos, order: Order) -> list[str]:
    return [step["function_name"] for step in engine.client.list_workflow_steps(order.id)]


def ending(shop: FatedShop, order: Order) -> Ending | None:
    return judge(shop).endings.get(order.id)


def test_an_order_is_completed_and_its_saga_begun_once(engine: Dbos, site: Site) -> None:
    assert [carry_out(engine, FINE), carry_out(engine, FINE)] == [Outcome.COMPLETED] * 2
    assert asked(engine, FINE) == list(STEPS)
    assert ending(site.shop, FINE) is Ending.COMPLETE


def test_a_refused_order_is_undone_in_reverse(engine: Dbos, site: Site) -> None:
    assert carry_out(engine, REFUSED) is Outcome.COMPENSATED
    assert asked(engine, REFUSED) == [*STEPS, *UNDONE]
    assert ending(site.shop, REFUSED) is Ending.COMPENSATED


@pytest.mark.parametrize("order", [TRANSIENT, LOST], ids=["transient", "answer lost"])
def test_what_fails_for_a_while_is_asked_again_and_done_once(order: Order, engine: Dbos, site: Site) -> None:
    assert carry_out(engine, order) is Outcome.COMPLETED
    assert ending(site.shop, order) is Ending.COMPLETE
    with connect(site.shop.conninfos["payments"]) as connection:
        attempts = "select number from attempts where request_id = %s"
        assert connection.execute(attempts, [f"{order.id}:{Action.CHARGE}"]).fetchone() == (
            3 if order is TRANSIENT else 2,
        )


def test_a_step_of_which_nobody_knows_whether_it_was_done_is_undone_as_well(engine: Dbos, site: Site) -> None:
    assert carry_out(engine, BROKEN) is Outcome.COMPENSATED
    assert asked(engine, BROKEN) == [*STEPS, Action.RECALL, *UNDONE]
    assert ending(site.shop, BROKEN) is Ending.COMPENSATED


def test_an_order_that_no_retry_would_help_is_undone_with_all_before_it(engine: Dbos, site: Site) -> None:
    with connect(site.shop.conninfos["payments"]) as connection:
        rule = sql.SQL("alter table charges add constraint rule check (order_id <> {})")
        connection.execute(rule.format(sql.Literal(POISON.id)))
    assert carry_out(engine, POISON) is Outcome.COMPENSATED
    assert asked(engine, POISON) == [*STEPS[:3], *UNDONE]
    assert "CheckViolation" in str(engine.client.list_workflow_steps(POISON.id)[2]["error"])
    assert ending(site.shop, POISON) is Ending.COMPENSATED


def test_a_compensation_that_fails_for_good_waits_for_the_operator_who_goes_on_with_it(
    engine: Dbos, site: Site
) -> None:
    assert carry_out(engine, STUCK) is Outcome.PARKED
    assert ending(site.shop, STUCK) is Ending.INCONSISTENT
    with connect(site.shop.conninfos["stock"]) as connection:
        mend(connection, f"{STUCK.id}:{Action.RELEASE}")
    engine.retry(STUCK.id)
    assert wait(engine, [STUCK.id])[STUCK.id].outcome is Outcome.COMPENSATED
    assert asked(engine, STUCK) == [*STEPS, *UNDONE]
    assert ending(site.shop, STUCK) is Ending.COMPENSATED


def completed(outcomes: dict[str, Outcome]) -> int:
    return sum(outcome is Outcome.COMPLETED for outcome in outcomes.values())


def standing(shop: FatedShop, sagas: dict[str, Outcome]) -> Standing:
    """Of these sagas only."""
    found = judge(shop)
    return replace(found, endings={saga: found.endings[saga] for saga in found.endings.keys() & sagas.keys()})


@pytest.mark.slow
def test_two_workers_under_a_schedule_of_failures_end_every_saga(engine: Dbos, site: Site) -> None:
    ended = drive(engine, orders(5, 30, World()), concurrent=10)
    outcomes = {saga: one.outcome for saga, one in ended.items()}
    found = standing(site.shop, outcomes)
    assert (found.violations, found.count(Ending.COMPLETE)) == ([], completed(outcomes))
    assert 0 < completed(outcomes) < 30


@pytest.mark.fault
@pytest.mark.slow
def test_a_worker_that_is_killed_at_any_effect_goes_on_when_it_starts_anew(making: Making, tmp_path: Path) -> None:
    site, history, sagas = making(workers=0), tmp_path / "history.jsonl", list[str]()
    with opened(site) as engine:
        for number, window in enumerate(EffectWindow):
            for order in orders(20 + number, 3, World()):
                engine.start(order)
                sagas.append(order.id)
            arguments = (once_doomed, RecordedKill(window, nth=2, history=history), site.shop, engine.system, 0)
            assert Worker("dbos-0", tmp_path / "dbos.log", *arguments).start().wait() == -9
        with Worker("dbos-0", tmp_path / "dbos.log", *arguments):  # the kill is for its first life
            outcomes = {saga: one.outcome for saga, one in wait(engine, sagas).items()}
    for window in EffectWindow:
        require(History.read(history), f"SIGKILL {window}")
    assert (judge(site.shop).violations, judge(site.shop).count(Ending.COMPLETE)) == ([], completed(outcomes))


def test_a_kill_in_a_window_that_it_does_not_have_is_refused(site: Site, tmp_path: Path) -> None:
    wrong = Site(
        site.shop,
        site.name,
        site.endpoints,
        tmp_path,
        site.worker,
        kill=RecordedKill(WorkerWindow.READ, history=tmp_path),
    )
    with pytest.raises(ConfigurationError, match="after replies are read"), opened(wrong):
        pass
