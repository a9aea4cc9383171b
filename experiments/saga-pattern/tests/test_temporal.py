"""The saga on Temporal: on its development server, on its test server that skips time, and replayed from histories."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import OperationalError
from saga.engines import Outcome, Site, wait
from saga.engines.temporal import opened
from saga.fates import Fate, Fates
from saga.invariant import Ending, judge
from saga.order import STEPS, Action, Order, Reply, Request
from saga.services import shop as shops
from saga.services.shop import Shop
from saga.temporal.activities import Activities
from saga.temporal.apart import Apart, CallFailed
from saga.temporal.client import NoSuchSaga, Sagas
from saga.temporal.held import Gate, HeldActivities
from saga.temporal.histories import actions, asked, happened, refusals
from saga.temporal.kills import BACKWARD, TURN, broken
from saga.temporal.messages import Limits, Progress, Status
from saga.temporal.skipping import Skipping
from saga.temporal.stage import WORLD, beaten, repair
from saga.temporal.trials import MANY, some
from saga.temporal.versions import Before, Unpatched
from saga.temporal.worker import Job, work
from saga.temporal.workflow import HEARTBEAT, STEPS_BEFORE, OrderSaga
from saga.windows import EffectWindow, Kill

from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
FINE, LOST, REFUSED, UNKNOWN, TWICE, ABORT, CANCEL, SLOW, BACKOFF, LATE, MONTH, STUCK, LONELY, KILLED = some("case", 14)
FATES = Fates(
    steps={},
    undos={},
    fixed={
        **broken([UNKNOWN, ABORT, CANCEL, BACKOFF, LATE], Action.SHIP),
        **broken([MONTH, STUCK], Action.REFUND),
        **{(one.id, Action.SHIP): Fate.REFUSED for one in (MONTH, STUCK)},
        (REFUSED.id, Action.SHIP): Fate.REFUSED,
        (LOST.id, Action.CHARGE): Fate.ANSWER_LOST,
    },
)
Starter = Callable[..., Worker]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts a process: (name, function, *arguments). In this one no test makes a client; see saga.temporal.apart."""
    folder, started = tmp_path_factory.mktemp("logs"), list[Worker]()

    def begin(name: str, function: Callable[..., None], *arguments: object) -> Worker:
        started.append(Worker(name, folder / f"{name}.log", function, *arguments).start())
        return started[-1]

    yield begin
    for worker in started:
        worker.stop()


@pytest.fixture(scope="module")
def name() -> str:
    return f"lab_test_{uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def shop(postgres: Endpoint, name: str) -> Iterator[Shop]:
    """One for all tests, which have an order each."""
    yield shops.create(postgres, name, FATES, WORLD)
    shops.drop(postgres, name)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """It holds the slow order while it is charged."""
    return Gate(tmp_path_factory.mktemp("gate"), EffectWindow.BEFORE, {SLOW.id: Action.CHARGE})


@pytest.fixture(scope="module")
def sagas(temporal: Endpoint, name: str, shop: Shop, start: Starter, gate: Gate) -> Iterator[Apart[Sagas]]:
    """A client of the development server, with a worker at work."""
    with Apart(start, "client", partial(Sagas.opened, temporal.url, name)) as client:
        start("worker", work, Job(temporal.url, name, shop, activities=partial(HeldActivities, gates=(gate,))))
        yield client


@pytest.fixture(scope="module")
def skipping(shop: Shop, start: Starter) -> Iterator[Apart[Skipping]]:
    with Apart(start, "skipping", partial(Skipping.of, shop)) as client:
        yield client


def carry_out(sagas: Apart[Sagas], one: Order, limits: Limits = MANY) -> tuple[Progress, str]:
    """The saga's end and history."""
    sagas.call(Sagas.start, one, limits)
    return sagas.call(Sagas.ended, one.id), sagas.call(Sagas.history, one.id)


def begin_to_ship(sagas: Apart[Sagas], one: Order) -> None:
    sagas.call(Sagas.start, one, MANY)
    until("it to ship", lambda: sagas.call(Sagas.state, one.id).doing is Action.SHIP)


# On the development server.


def test_a_saga_does_its_steps_one_after_the_other(sagas: Apart[Sagas], shop: Shop) -> None:
    ended, history = carry_out(sagas, FINE)
    assert (ended.status, actions(history)) == (Status.COMPLETED, list(STEPS))
    assert judge(shop).endings[FINE.id] is Ending.COMPLETE


def test_a_refused_step_is_not_undone_and_all_before_it_is_in_reverse(sagas: Apart[Sagas], shop: Shop) -> None:
    ended, history = carry_out(sagas, REFUSED)
    assert (ended.status, actions(history)) == (Status.COMPENSATED, [*STEPS, *BACKWARD[1:]])
    assert "the business refuses" in ended.reason


def test_a_step_of_which_nobody_knows_is_undone_as_well(sagas: Apart[Sagas], shop: Shop) -> None:
    ended, history = carry_out(sagas, UNKNOWN, Limits(attempts=2))
    assert (ended.status, actions(history)) == (Status.COMPENSATED, [*STEPS, *BACKWARD])
    assert judge(shop).endings[UNKNOWN.id] is Ending.COMPENSATED


def test_a_lost_answer_is_asked_for_again_and_its_effect_is_there_once(sagas: Apart[Sagas], shop: Shop) -> None:
    _, history = carry_out(sagas, LOST)
    assert {found.action: found.attempts for found in asked(history)}[Action.CHARGE] == 2
    assert judge(shop).endings[LOST.id] is Ending.COMPLETE
    assert not [violation for violation in judge(shop).violations if LOST.id in violation]


def test_a_saga_that_is_begun_twice_is_one_saga(sagas: Apart[Sagas]) -> None:
    sagas.call(Sagas.start, TWICE)
    before = carry_out(sagas, TWICE)
    assert carry_out(sagas, TWICE) == before


def test_an_operator_aborts_a_saga_with_a_reason(sagas: Apart[Sagas]) -> None:
    begin_to_ship(sagas, ABORT)
    sagas.call(Sagas.abort, ABORT.id, "fraud")
    assert sagas.call(Sagas.ended, ABORT.id) == Progress(Status.COMPENSATED, reason="aborted: fraud")


def test_a_cancelled_workflow_undoes_what_it_has_done(sagas: Apart[Sagas], shop: Shop) -> None:
    begin_to_ship(sagas, CANCEL)
    sagas.call(Sagas.cancel, CANCEL.id)
    assert sagas.call(Sagas.ended, CANCEL.id) == Progress(Status.COMPENSATED, reason="cancelled")
    assert judge(shop).endings[CANCEL.id] is Ending.COMPENSATED


def test_heartbeats_keep_an_attempt_alive_that_takes_longer_than_their_timeout(sagas: Apart[Sagas], gate: Gate) -> None:
    sagas.call(Sagas.start, SLOW, MANY)
    until("heartbeats", lambda: sagas.call(beaten, SLOW.id) > HEARTBEAT.total_seconds())
    gate.open()
    assert sagas.call(Sagas.ended, SLOW.id).status is Status.COMPLETED
    assert [found.attempts for found in asked(sagas.call(Sagas.history, SLOW.id))] == [1, 1, 1, 1]


def test_who_speaks_to_a_saga_that_is_not_there_is_told_so(sagas: Apart[Sagas]) -> None:
    with pytest.raises(NoSuchSaga, match="'nobody'"):
        sagas.call(Sagas.abort, "nobody", "why not")
    with pytest.raises(NoSuchSaga, match="'nobody'"):
        sagas.call(Sagas.state, "nobody")


def test_an_order_of_the_wrong_shape_stands_still_with_the_reason_and_nothing_is_done(
    sagas: Apart[Sagas], shop: Shop
) -> None:
    unreadable = Order("unreadable", "customer-001", "product-01", 1, "5 EUR")  # type: ignore[arg-type]
    sagas.call(Sagas.start, unreadable, timeout=3.0)
    said = until("the worker to refuse", lambda: refusals(sagas.call(Sagas.history, unreadable.id)))
    assert "`$.order.cents`" in said[0]
    assert unreadable.id not in judge(shop).endings


def test_what_fails_in_the_other_process_is_told_in_this_one(sagas: Apart[Sagas]) -> None:
    with pytest.raises(CallFailed, match="not found"):
        sagas.call(Sagas.history, "nobody")


# On the test server that skips time.


def test_the_pauses_between_attempts_double_up_to_five_seconds(skipping: Apart[Skipping]) -> None:
    ended, seconds = skipping.call(Skipping.through, BACKOFF, Limits(attempts=9))
    assert ended.status is Status.COMPENSATED
    assert seconds == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 + 5, abs=2)


def test_a_saga_out_of_time_undoes_what_it_has_done(skipping: Apart[Skipping], shop: Shop) -> None:
    ended, seconds = skipping.call(Skipping.through, LATE, Limits(attempts=10_000, deadline=60))
    assert (ended.reason, judge(shop).endings[LATE.id]) == ("out of time", Ending.COMPENSATED)
    assert seconds == pytest.approx(60, abs=2)


def test_a_compensation_that_fails_waits_for_its_operator_for_a_month(skipping: Apart[Skipping], shop: Shop) -> None:
    waiting = skipping.call(Skipping.later, MONTH, Limits(undo_attempts=3), 30)
    assert (waiting.status, waiting.undo) == (Status.PARKED, BACKWARD[1:])
    assert waiting.reason.startswith(Action.REFUND)
    repair(shop, MONTH, Action.REFUND)
    skipping.call(Sagas.mended, MONTH.id)
    assert skipping.call(Sagas.ended, MONTH.id).status is Status.COMPENSATED


# Replayed.


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_the_code_agrees_with_the_history_of_every_saga_under_way(sagas: Apart[Sagas], path: Path) -> None:
    assert sagas.call(Sagas.replay, path.read_text(), OrderSaga) == ""


def test_without_the_patch_the_code_does_not_agree_with_a_saga_that_began_before(sagas: Apart[Sagas]) -> None:
    history = (Path(__file__).parent / "histories" / "before.json").read_text()
    assert actions(history) == list(STEPS_BEFORE)
    assert "charge-payment" in sagas.call(Sagas.replay, history, Unpatched)
    assert sagas.call(Sagas.replay, history, Before) == ""


def test_an_answer_that_comes_together_with_the_deadline_does_not_keep_its_step_from_being_undone() -> None:
    history = (Path(__file__).parent / "histories" / "late.json").read_text()
    [deadline] = [number for number, event in enumerate(happened(history)) if event == "TIMER_FIRED"]
    before_the_next_task = happened(history)[deadline : happened(history).index("WORKFLOW_TASK_COMPLETED", deadline)]
    assert "ACTIVITY_TASK_COMPLETED" in before_the_next_task
    assert actions(history) == [*STEPS[:3], *BACKWARD]


# The activities by themselves.


def test_a_thread_whose_database_went_away_fails_once_and_then_has_new_connections(shop: Shop) -> None:
    activities, request = Activities(shop), Request(LONELY.id, Action.PLACE, LONELY)
    lost = activities.services().connections["orders"].info.backend_pid
    with connect(shop.conninfos["orders"]) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", [lost])
    with pytest.raises(OperationalError):
        activities.ask(request)
    assert activities.ask(request) == Reply(LONELY.id, Action.PLACE)


# Behind the port of the engines.


def test_a_saga_that_waits_for_its_operator_is_parked_until_it_is_mended(
    temporal: Endpoint, shop: Shop, start: Starter, unique: str, tmp_path: Path
) -> None:
    with opened(Site(shop, unique, {"temporal": temporal}, tmp_path, start), Limits(undo_attempts=1)) as engine:
        engine.start(STUCK)
        assert wait(engine, [STUCK.id])[STUCK.id].outcome is Outcome.PARKED
        repair(shop, STUCK, Action.REFUND)
        with Apart(start, "operator", partial(Sagas.opened, temporal.url, unique)) as operator:
            assert operator.call(Sagas.waiting) == [STUCK.id]
            operator.call(Sagas.mended, STUCK.id)
            assert operator.call(Sagas.ended, STUCK.id).status is Status.COMPENSATED


def test_a_saga_ends_whose_worker_is_killed_after_the_charge(
    temporal: Endpoint, shop: Shop, start: Starter, unique: str, tmp_path: Path
) -> None:
    kill = Kill(EffectWindow.AFTER, tmp_path / "history.jsonl", TURN[Action.CHARGE])
    with opened(Site(shop, unique, {"temporal": temporal}, tmp_path, start, kill=kill)) as engine:
        engine.start(KILLED)
        [victim] = engine.workers
        assert victim.wait() < 0
        start("heir", work, Job(temporal.url, unique, shop))
        assert wait(engine, [KILLED.id])[KILLED.id].outcome is Outcome.COMPLETED
        assert "temporal server" in engine.pids
    require(History.read(kill.history), "after the effect")
    assert judge(shop).endings[KILLED.id] is Ending.COMPLETE
