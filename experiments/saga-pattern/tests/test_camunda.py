"""The saga on a real Camunda: what becomes of an order, whatever fails, and whoever dies."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest
from saga.engines.camunda import BPMN
from saga.engines.camunda.client import Camunda, Refused, Unavailable
from saga.engines.camunda.worker import Policy, work
from saga.order import STEPS, Action, Order, Outcome, Request, World, orders
from saga.services import shop as shops
from saga.services.invariant import Ending, judge
from saga.stage.diagram import PICTURE, render
from saga.stage.engines import Site, wait
from saga.stage.engines.camunda import CamundaEngine, opened
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.fates import create as create_shop
from saga.stage.killing import RecordedKill, doomed
from saga.windows import EffectWindow

from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

FINE, REFUSED, TRANSIENT, BROKEN, STUCK, LATE, SLOW_UNDO, SMALL, TAKEN, *GOOD = orders(17, 12, World())
HUGE = msgspec.structs.replace(SMALL, quantity=2**31)  # a valid order, and no integer of the databases'
UNDONE = [Action.REFUND, Action.RELEASE, Action.CANCEL]
FATES = Fates(
    steps={},
    undos={},
    fixed={
        (REFUSED.id, Action.SHIP): Fate.REFUSED,
        (TRANSIENT.id, Action.CHARGE): Fate.TRANSIENT,
        (BROKEN.id, Action.SHIP): Fate.BROKEN,
        (STUCK.id, Action.SHIP): Fate.REFUSED,
        (STUCK.id, Action.RELEASE): Fate.BROKEN,
        (LATE.id, Action.CHARGE): Fate.BROKEN,
        (SLOW_UNDO.id, Action.RESERVE): Fate.REFUSED,
        (SLOW_UNDO.id, Action.CANCEL): Fate.BROKEN,
    },
)
QUICK = Policy(lock=1.0, wait=0.2, attempts=3, undo_attempts=3, pause=0.05)
Making = Callable[..., Site]


@pytest.fixture(scope="module")
def making(postgres: Endpoint, camunda: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Making]:
    """Sites with a shop of their own: making(workers=2)."""
    names: list[str] = []

    def make(workers: int = 1, kill: RecordedKill | None = None) -> Site:
        names.append(f"lab_test_{uuid4().hex[:10]}")
        folder = tmp_path_factory.mktemp("camunda")

        def worker(name: str, *arguments: object) -> Worker:
            return Worker(name, folder / f"{name}.log", *arguments).start()  # type: ignore[arg-type]

        shop = create_shop(postgres, names[-1], FATES)
        return Site(shop, names[-1], {"camunda": camunda}, folder, worker, workers, kill)

    yield make
    for name in names:
        shops.drop(postgres, name)


@pytest.fixture(scope="module")
def site(making: Making) -> Site:
    return making(workers=2)


@pytest.fixture(scope="module")
def engine(site: Site) -> Iterator[CamundaEngine]:
    """Camunda with two workers, which all tests of this file share: every order has its own fate."""
    with opened(site, QUICK) as up:
        yield up


def carry_out(engine: CamundaEngine, order: Order, timeout: float = 60.0) -> Outcome:
    engine.start(order, timeout)
    return wait(engine, [order.id])[order.id].outcome


def done(engine: CamundaEngine, order: Order) -> list[str]:
    """The tasks of the saga in their order; `undo-step` is the one for the step that failed."""
    [instance] = engine.camunda.instances([order.id])
    tasks = {*Action, "undo-step"}
    return [activity.id for activity in engine.camunda.activities(instance) if activity.id in tasks]


def ending(shop: FatedShop, order: Order) -> Ending | None:
    return judge(shop).endings.get(order.id)


def test_the_picture_is_that_of_the_diagram() -> None:
    assert PICTURE.read_text() == render(BPMN.read_text()), "make it anew: python -m saga.stage.diagram"


def test_an_order_is_completed_and_its_saga_begun_once(engine: CamundaEngine, site: Site) -> None:
    assert [carry_out(engine, FINE), carry_out(engine, FINE)] == [Outcome.COMPLETED] * 2
    assert done(engine, FINE) == list(STEPS)
    assert ending(site.shop, FINE) is Ending.COMPLETE


def test_a_refused_order_is_undone_in_reverse_and_its_instance_completed(engine: CamundaEngine, site: Site) -> None:
    assert carry_out(engine, REFUSED) is Outcome.COMPENSATED
    assert done(engine, REFUSED) == [*STEPS, "undo-step", *UNDONE]
    assert ending(site.shop, REFUSED) is Ending.COMPENSATED
    assert [instance.state for instance in engine.camunda.instances([REFUSED.id])] == ["COMPLETED"]


def test_what_fails_for_a_while_is_asked_again(engine: CamundaEngine, site: Site) -> None:
    assert carry_out(engine, TRANSIENT) is Outcome.COMPLETED
    assert ending(site.shop, TRANSIENT) is Ending.COMPLETE


def test_a_step_that_is_given_up_is_undone_as_well(engine: CamundaEngine, site: Site) -> None:
    assert carry_out(engine, BROKEN) is Outcome.COMPENSATED
    assert done(engine, BROKEN) == [*STEPS, "undo-step", *UNDONE]
    assert ending(site.shop, BROKEN) is Ending.COMPENSATED


def test_a_compensation_that_fails_for_good_waits_for_the_operator(engine: CamundaEngine, site: Site) -> None:
    assert carry_out(engine, STUCK) is Outcome.PARKED
    assert ending(site.shop, STUCK) is Ending.INCONSISTENT
    with connect(site.shop.conninfos["stock"]) as connection:
        mend(connection, f"{STUCK.id}:{Action.RELEASE}")
    engine.camunda.retry(STUCK.id)
    assert wait(engine, [STUCK.id])[STUCK.id].outcome is Outcome.COMPENSATED
    assert ending(site.shop, STUCK) is Ending.COMPENSATED


def test_a_poison_order_waits_with_its_reason_and_harms_neither_workers_nor_other_orders(engine: CamundaEngine) -> None:
    for order in (HUGE, *GOOD):
        engine.start(order)
    ended = wait(engine, [order.id for order in (HUGE, *GOOD)])
    assert [ended[order.id].outcome for order in (HUGE, *GOOD)] == [Outcome.PARKED] + [Outcome.COMPLETED] * len(GOOD)
    assert "NumericValueOutOfRange: integer out of range" in engine.camunda.incidents().values()
    assert [worker.alive() for worker in engine.workers] == [True, True]


def test_a_poison_order_that_nobody_mends_is_undone_when_its_time_is_up(engine: CamundaEngine, site: Site) -> None:
    with connect(site.shop.conninfos["shipping"]) as connection:  # nobody can ship it once more
        connection.execute("insert into shipments values (%s, 'recalled')", [TAKEN.id])
    assert carry_out(engine, TAKEN) is Outcome.PARKED
    assert any(reason.startswith("UniqueViolation") for reason in engine.camunda.incidents().values())
    engine.camunda.hurry(TAKEN.id)
    until("it to end", lambda: Outcome.COMPENSATED in {one.outcome for one in engine.ended([TAKEN.id]).values()})
    assert ending(site.shop, TAKEN) is Ending.COMPENSATED


def test_the_timer_gives_up_what_would_go_on_for_ever(making: Making) -> None:
    site = making()
    with opened(site, replace(QUICK, attempts=1_000)) as engine:
        assert carry_out(engine, LATE, timeout=1.0) is Outcome.COMPENSATED
        assert "undo-step" in done(engine, LATE)
    assert judge(site.shop).violations == []


def test_what_the_timer_gave_up_is_done_no_more(making: Making) -> None:
    site, one = making(), replace(QUICK, threads=1, lock=60.0)
    history = site.folder / "history.jsonl"
    with opened(replace(site, kill=RecordedKill(EffectWindow.BEFORE, nth=3, history=history)), one) as engine:
        engine.start(FINE)
        assert engine.workers[0].wait() == -9
        engine.camunda.hurry(FINE.id)
        with site.worker("second", work, site.shop, engine.url, site.name, QUICK):
            assert wait(engine, [FINE.id])[FINE.id].outcome is Outcome.COMPENSATED
    require(History.read(history), f"SIGKILL {EffectWindow.BEFORE}")
    with site.shop.open() as services:
        late = services(Request(FINE.id, Action.CHARGE, FINE))
    assert late.refused == "refund-payment came before it"


def test_the_timer_ends_when_the_compensation_begins(making: Making) -> None:
    site = making(workers=0)
    with opened(site) as engine:
        engine.start(SLOW_UNDO)
        query = {"processInstanceId": engine.camunda.instances([SLOW_UNDO.id])[0].id}
        assert len(engine.camunda.ask("GET", "/job", params=query)) == 1
        with site.worker("late", work, site.shop, engine.url, site.name, QUICK):
            assert wait(engine, [SLOW_UNDO.id])[SLOW_UNDO.id].outcome is Outcome.PARKED
        assert done(engine, SLOW_UNDO) == [Action.PLACE, Action.RESERVE, "undo-step", Action.CANCEL]
        assert engine.camunda.ask("GET", "/job", params=query) == []


def test_what_is_kept_for_a_look_is_there_after_the_engine(making: Making) -> None:
    site = replace(making(workers=0), keep=True)
    with opened(site) as engine:
        engine.start(FINE)
    with Camunda(engine.url, site.name) as camunda:
        assert [instance.saga for instance in camunda.instances([FINE.id])] == [FINE.id]
        camunda.remove()
        assert camunda.instances([FINE.id]) == []


@pytest.mark.fault
def test_a_worker_is_killed_at_any_effect_and_another_takes_over_when_its_locks_have_expired(making: Making) -> None:
    site, hasty, sagas = making(workers=0), replace(QUICK, lock=0.5), list[str]()
    history = site.folder / "history.jsonl"
    arguments = site.shop, site.endpoints["camunda"].url, site.name, hasty
    with opened(site) as engine:
        for window, order in zip(EffectWindow, orders(23, 3, World()), strict=True):
            engine.start(order)
            sagas.append(order.id)
            kill = RecordedKill(window, nth=2, history=history)
            assert site.worker("first", doomed, kill, work, *arguments).wait() == -9
        with site.worker("second", work, *arguments):
            assert {one.outcome for one in wait(engine, sagas).values()} == {Outcome.COMPLETED}
    for window in EffectWindow:
        require(History.read(history), f"SIGKILL {window}")
    assert (judge(site.shop).violations, judge(site.shop).count(Ending.COMPLETE)) == ([], 3)


def test_a_saga_that_no_worker_can_read_waits_for_the_operator(engine: CamundaEngine) -> None:
    body = {"businessKey": "odd", "variables": {"order": {"value": "{"}, "timeout": {"value": "PT60S"}}}
    engine.camunda.ask("POST", f"/process-definition/key/order/tenant-id/{engine.camunda.tenant}/start", json=body)
    assert wait(engine, ["odd"])["odd"].outcome is Outcome.PARKED
    assert any("unreadable" in reason for reason in engine.camunda.incidents().values())


def test_what_camunda_refuses_is_said_in_its_own_words(engine: CamundaEngine) -> None:
    with pytest.raises(Refused, match="no saga 'nobody' runs"):
        engine.camunda.retry("nobody")
    with pytest.raises(Refused, match="no timer of saga 'nobody' runs"):
        engine.camunda.hurry("nobody")
    with pytest.raises(Refused, match="cvc-complex-type"):
        engine.camunda.deploy(BPMN.read_bytes().replace(b"</bpmn:process>", b"<bpmn:nonsense/></bpmn:process>"))


def test_a_camunda_that_is_not_there_is_unavailable() -> None:
    with Camunda("http://127.0.0.1:9/engine-rest", "nobody") as camunda, pytest.raises(Unavailable, match="not answer"):
        camunda.deploy()
