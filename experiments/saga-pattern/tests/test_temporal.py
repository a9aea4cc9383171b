"""The saga on Temporal: on its development server, on its test server that skips time, and replayed from histories."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import OperationalError
from saga.engines.temporal.activities import Activities
from saga.engines.temporal.client import NoSuchWorkflow, Sagas
from saga.engines.temporal.histories import actions, asked, given_up, happened
from saga.engines.temporal.messages import Limits, Phase, Progress
from saga.engines.temporal.worker import Job, work
from saga.order import STEPS, Action, Order, Outcome, Reply, Request
from saga.services import shop as shops
from saga.services.invariant import Ending, judge
from saga.stage.apart import Apart, CallFailed
from saga.stage.engines import Engine, Site, wait
from saga.stage.engines.temporal import opened
from saga.stage.fates import Fate, FatedShop, Fates
from saga.stage.fates import create as create_shop
from saga.stage.foreign.temporal import signal
from saga.stage.killing import RecordedKill
from saga.stage.skipping import Skipping
from saga.stage.temporal import (
    BACKWARD,
    CALM,
    TURN,
    WORLD,
    Gate,
    HeldActivities,
    beaten,
    broken,
    hanging,
    killed_in_the_end,
    repair,
    some,
)
from saga.windows import EffectWindow

from shared.errors import NotWritable, StartFailed
from shared.faults import require
from shared.history import History
from shared.postgres import connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

FINE, LOST, REFUSED, UNKNOWN, TWICE, ABORT, CANCEL, SLOW, *OTHERS = some("case", 16)
BACKOFF, LATE, MONTH, STUCK, LONELY, HUNG, DEAF, WAITS = OTHERS
# Where a worker is killed, in sagas of their own: in every window of a step, and of a compensation.
KILLED = dict(zip(product((Action.CHARGE, Action.REFUND), EffectWindow), some("killed", 6), strict=True))
MANY = Limits(attempts=10_000, deadline=600, heartbeat=CALM)
FATES = Fates(
    steps={},
    undos={},
    fixed={
        **broken([UNKNOWN, ABORT, CANCEL, BACKOFF, LATE, DEAF], Action.SHIP),
        **broken([MONTH, STUCK, WAITS], Action.REFUND),
        **{(one.id, Action.SHIP): Fate.REFUSED for one in (MONTH, STUCK, WAITS)},
        **{(one.id, Action.SHIP): Fate.REFUSED for (action, _), one in KILLED.items() if action is Action.REFUND},
        (REFUSED.id, Action.SHIP): Fate.REFUSED,
        (LOST.id, Action.CHARGE): Fate.ANSWER_LOST,
    },
)
Starter = Callable[..., Worker]
Gates = tuple[Gate, Gate]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts a process: (name, function, *arguments). In this one no test makes a client; see saga.stage.apart."""
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
def shop(postgres: Endpoint, name: str) -> Iterator[FatedShop]:
    """One for all tests, which have an order each."""
    yield create_shop(postgres, name, FATES, WORLD)
    shops.drop(postgres, name)


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Gates:
    """One holds the slow order before it is charged, one the order whose attempt hangs."""
    folder, before = tmp_path_factory.mktemp("gates"), EffectWindow.BEFORE
    slow, hung = (Gate(folder / one.id, before, {one.id: Action.CHARGE}) for one in (SLOW, HUNG))
    return slow, hung


@pytest.fixture(scope="module")
def sagas(temporal: Endpoint, name: str, shop: FatedShop, start: Starter, gates: Gates) -> Iterator[Apart[Sagas]]:
    """A client of the development server, with a worker at work, and both sagas begun that are held for seconds."""
    with Apart(start, "client", partial(Sagas.opened, temporal.url, name)) as client:
        start("worker", work, Job(temporal.url, name, shop, activities=partial(HeldActivities, gates=gates)))
        client.call(Sagas.start, HUNG, hanging(CALM))
        client.call(Sagas.start, SLOW, Limits(deadline=600, attempt=600, heartbeat=CALM))
        yield client


@pytest.fixture(scope="module")
def skipping(shop: FatedShop, start: Starter) -> Iterator[Apart[Skipping]]:
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


def test_a_saga_does_its_steps_one_after_the_other(sagas: Apart[Sagas], shop: FatedShop) -> None:
    ended, history = carry_out(sagas, FINE)
    assert (ended.status, actions(history)) == (Phase.COMPLETED, list(STEPS))
    assert judge(shop).endings[FINE.id] is Ending.COMPLETE


def test_a_refused_step_is_not_undone_and_all_before_it_is_in_reverse(sagas: Apart[Sagas], shop: FatedShop) -> None:
    ended, history = carry_out(sagas, REFUSED)
    assert (ended.status, actions(history)) == (Phase.COMPENSATED, [*STEPS, *BACKWARD[1:]])
    assert "the business refuses" in ended.reason


def test_a_step_of_which_nobody_knows_is_undone_as_well(sagas: Apart[Sagas], shop: FatedShop) -> None:
    ended, history = carry_out(sagas, UNKNOWN, Limits(attempts=2, heartbeat=CALM))
    assert (ended.status, actions(history)) == (Phase.COMPENSATED, [*STEPS, *BACKWARD])
    assert judge(shop).endings[UNKNOWN.id] is Ending.COMPENSATED


def test_a_lost_answer_is_asked_for_again_and_its_effect_is_there_once(sagas: Apart[Sagas], shop: FatedShop) -> None:
    _, history = carry_out(sagas, LOST)
    assert {found.action: found.attempts for found in asked(history)}[Action.CHARGE] == 2
    assert judge(shop).endings[LOST.id] is Ending.COMPLETE
    assert not [violation for violation in judge(shop).violations if violation.startswith(f"{LOST.id}:")]


def test_a_saga_that_is_begun_twice_is_one_saga(sagas: Apart[Sagas]) -> None:
    sagas.call(Sagas.start, TWICE)
    before = carry_out(sagas, TWICE)
    assert carry_out(sagas, TWICE) == before


def test_an_operator_aborts_a_saga_with_a_reason(sagas: Apart[Sagas]) -> None:
    begin_to_ship(sagas, ABORT)
    sagas.call(Sagas.abort, ABORT.id, "fraud")
    assert sagas.call(Sagas.ended, ABORT.id) == Progress(Phase.COMPENSATED, reason="aborted: fraud")


def test_a_cancelled_workflow_undoes_what_it_has_done(sagas: Apart[Sagas], shop: FatedShop) -> None:
    begin_to_ship(sagas, CANCEL)
    sagas.call(Sagas.cancel, CANCEL.id)
    assert sagas.call(Sagas.ended, CANCEL.id) == Progress(Phase.COMPENSATED, reason="cancelled")
    assert judge(shop).endings[CANCEL.id] is Ending.COMPENSATED


def test_heartbeats_keep_an_attempt_alive_that_takes_longer_than_their_timeout(
    sagas: Apart[Sagas], gates: Gates
) -> None:
    until("heartbeats", lambda: sagas.call(beaten, SLOW.id) > CALM)
    gates[0].open()
    assert sagas.call(Sagas.ended, SLOW.id).status is Phase.COMPLETED
    assert [found.attempts for found in asked(sagas.call(Sagas.history, SLOW.id))] == [1, 1, 1, 1]


def test_an_attempt_that_beats_and_hangs_is_given_up_and_undone(
    sagas: Apart[Sagas], shop: FatedShop, gates: Gates
) -> None:
    ended, history = sagas.call(Sagas.ended, HUNG.id), sagas.call(Sagas.history, HUNG.id)
    assert (gates[1].held(), given_up(history)) == ({HUNG.id}, {Action.CHARGE: "START_TO_CLOSE"})
    gates[1].open()
    assert (ended.status, actions(history)) == (Phase.COMPENSATED, [*STEPS[:3], *BACKWARD[1:]])
    assert judge(shop).endings[HUNG.id] is Ending.COMPENSATED


def test_who_speaks_to_a_saga_that_is_not_there_is_told_so(sagas: Apart[Sagas]) -> None:
    with pytest.raises(NoSuchWorkflow, match="'nobody'"):
        sagas.call(Sagas.abort, "nobody", "why not")
    with pytest.raises(NoSuchWorkflow, match="'nobody'"):
        sagas.call(Sagas.state, "nobody")


def test_an_order_that_no_worker_could_read_is_not_begun(sagas: Apart[Sagas]) -> None:
    for odd in (
        Order("unreadable", "c", "p", 1, "5 EUR"),  # type: ignore[arg-type]
        Order("unreadable", "c", "p", 1, float("nan")),  # type: ignore[arg-type]
        Order("unreadable", "\ud83d", "p", 1, 1),
    ):
        with pytest.raises(NotWritable, match=r"order\.(cents|customer)"):
            sagas.call(Sagas.start, odd)


def test_a_signal_that_nobody_can_read_changes_nothing_and_the_next_is_heard(sagas: Apart[Sagas]) -> None:
    begin_to_ship(sagas, DEAF)
    for reason in (b'"gesch\xfctzt"', b"[" * 50_000, rb'"\ud83d"', b"5", b""):
        sagas.call(signal, DEAF.id, "abort", reason)
    sagas.call(Sagas.abort, DEAF.id, "fraud")
    assert sagas.call(Sagas.ended, DEAF.id) == Progress(Phase.COMPENSATED, reason="aborted: fraud")


def test_a_cancelled_workflow_that_waits_for_its_operator_waits_on_and_is_undone_when_it_is_mended(
    sagas: Apart[Sagas], shop: FatedShop
) -> None:
    sagas.call(Sagas.start, WAITS, Limits(undo_attempts=1, heartbeat=CALM))
    until("it to wait", lambda: sagas.call(Sagas.state, WAITS.id).status is Phase.PARKED)
    sagas.call(Sagas.cancel, WAITS.id)
    until("it to have heard", lambda: heard(sagas.call(Sagas.history, WAITS.id), "CANCEL_REQUESTED"))
    repair(shop, WAITS, Action.REFUND)
    sagas.call(Sagas.mended, WAITS.id)
    assert sagas.call(Sagas.closed, WAITS.id) == "COMPLETED"
    assert judge(shop).endings[WAITS.id] is Ending.COMPENSATED


def heard(history: str, what: str) -> bool:
    """Whether the workflow's code has dealt with an event that is named so."""
    _, found, after = "\n".join(happened(history)).partition(what)
    return bool(found) and "WORKFLOW_TASK_COMPLETED" in after


def test_workers_of_a_stage_are_gone_also_when_what_is_played_fails(start: Starter) -> None:
    workers = [start(f"idle-{number}", time.sleep, 600) for number in range(2)]

    def fails() -> Iterator[Worker]:
        yield workers[1]
        raise StartFailed("third", "it cannot.")

    with pytest.raises(KeyError), killed_in_the_end(workers[:1]):
        raise KeyError
    with pytest.raises(StartFailed), killed_in_the_end(fails()):
        pass
    assert [worker.alive() for worker in workers] == [False, False]


def test_what_fails_in_the_other_process_is_told_in_this_one(sagas: Apart[Sagas]) -> None:
    with pytest.raises(CallFailed, match="not found"):
        sagas.call(Sagas.history, "nobody")


# On the test server that skips time.


def test_the_pauses_between_attempts_double_up_to_five_seconds(skipping: Apart[Skipping]) -> None:
    ended, seconds = skipping.call(Skipping.through, BACKOFF, Limits(attempts=12, deadline=600))
    assert ended.status is Phase.COMPENSATED
    # The attempts take real time. Pauses that went on doubling would be 205 s, those of always 5 s would be 55 s.
    assert 0 <= seconds - (0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 * 5) < 15


def test_a_saga_out_of_time_undoes_what_it_has_done(skipping: Apart[Skipping], shop: FatedShop) -> None:
    ended, seconds = skipping.call(Skipping.through, LATE, Limits(attempts=10_000, deadline=60))
    assert (ended.reason, judge(shop).endings[LATE.id]) == ("out of time", Ending.COMPENSATED)
    assert 60 <= seconds < 75


def test_a_compensation_that_fails_waits_for_its_operator_for_a_month(
    skipping: Apart[Skipping], shop: FatedShop
) -> None:
    waiting = skipping.call(Skipping.later, MONTH, Limits(undo_attempts=3), 30)
    assert (waiting.status, waiting.undo) == (Phase.PARKED, BACKWARD[1:])
    assert waiting.reason.startswith(Action.REFUND)
    repair(shop, MONTH, Action.REFUND)
    skipping.call(Sagas.mended, MONTH.id)
    assert skipping.call(Sagas.ended, MONTH.id).status is Phase.COMPENSATED


# The activities by themselves.


def test_a_thread_whose_database_went_away_fails_once_and_then_has_new_connections(shop: FatedShop) -> None:
    activities, request = Activities(shop), Request(LONELY.id, Action.PLACE, LONELY)
    lost = activities.services().connections["orders"].info.backend_pid
    with connect(shop.conninfos["orders"]) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", [lost])
    with pytest.raises(OperationalError):
        activities.ask(request)
    assert activities.ask(request) == Reply(LONELY.id, Action.PLACE)


# Behind the port of the engines.


def test_a_saga_that_waits_for_its_operator_is_parked_until_it_is_mended(
    temporal: Endpoint, shop: FatedShop, start: Starter, unique: str, tmp_path: Path
) -> None:
    with opened(Site(shop, unique, {"temporal": temporal}, tmp_path, start), Limits(undo_attempts=1)) as engine:
        engine.start(STUCK)
        assert wait(engine, [STUCK.id])[STUCK.id].outcome is Outcome.PARKED
        repair(shop, STUCK, Action.REFUND)
        with Apart(start, "operator", partial(Sagas.opened, temporal.url, unique)) as operator:
            assert operator.call(Sagas.waiting) == [STUCK.id]
            operator.call(Sagas.mended, STUCK.id)
            assert operator.call(Sagas.ended, STUCK.id).status is Phase.COMPENSATED


@pytest.fixture(scope="module")
def survivors(
    temporal: Endpoint, shop: FatedShop, name: str, start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Outcome, History]]:
    """By order: how its saga ended, and the history of the kill. All of them wait for the same seconds."""
    folder, engines, ended = tmp_path_factory.mktemp("kills"), dict[str, Engine](), dict[str, tuple[Outcome, History]]()
    with ExitStack() as stack:
        for (action, window), one in KILLED.items():
            kill = RecordedKill(window, nth=TURN[action], history=folder / one.id)
            site = Site(shop, f"{name}-{one.id}", {"temporal": temporal}, folder, start, kill=kill)
            engines[one.id] = stack.enter_context(opened(site))
            engines[one.id].start(one)
        for saga, engine in engines.items():
            assert engine.workers[0].wait() < 0
            start(f"heir of {saga}", work, Job(temporal.url, f"{name}-{saga}", shop))
        for saga, engine in engines.items():
            assert "temporal server" in engine.pids
            ended[saga] = wait(engine, [saga])[saga].outcome, History.read(folder / saga)
    return ended


@pytest.mark.fault
@pytest.mark.parametrize(("action", "window"), KILLED, ids=lambda each: each.replace(" ", "-"))
def test_a_saga_ends_whose_worker_is_killed(
    survivors: dict[str, tuple[Outcome, History]], shop: FatedShop, action: Action, window: EffectWindow
) -> None:
    saga = KILLED[action, window].id
    outcome, history = survivors[saga]
    require(history, f"SIGKILL {window}")
    assert outcome is (Outcome.COMPLETED if action is Action.CHARGE else Outcome.COMPENSATED)
    standing = judge(shop)
    assert standing.endings[saga] is (Ending.COMPLETE if action is Action.CHARGE else Ending.COMPENSATED)
    assert not [violation for violation in standing.violations if violation.startswith(f"{saga}:")]
