"""Without a saga: what dies in the middle stays there, half done or locked. And the simplest saga, which does not."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import pytest
from saga import plain
from saga.order import Order, World, orders
from saga.services.invariant import Ending, judge
from saga.services.shop import SERVICES
from saga.stage import no_saga as ways
from saga.stage.fates import Fates
from saga.stage.foreign import odd
from saga.stage.killing import RecordedKill
from saga.stage.no_saga import (
    ByDatabases,
    ByServices,
    Premises,
    Way,
    WithDatabase,
    build,
    cannot_pay,
    carry_out_all,
    die,
    held_up,
    others,
)
from saga.windows import CallWindow
from saga.wrong import nosaga
from saga.wrong.nosaga import CommitWindow, Locked, in_doubt, lock, resolve

from shared import codec
from shared import postgres as helpers
from shared.faults import require
from shared.history import History
from shared.postgres import Connection, connect
from shared.servers.handle import own_instance
from shared.servers.server import Endpoint
from shared.settings import Settings
from shared.worker import Worker

FIRST = Order("first", "customer-000", "product-00", 1, 500)
SAME_CUSTOMER = Order("second", "customer-000", "product-01", 1, 500)
CALLS, LOCK = ByServices("four calls", nosaga.four_calls), WithDatabase("a lock", nosaga.locked_calls)
LEASE = WithDatabase("a lease", partial(nosaga.locked_calls, lease=ways.LEASE))
TWO_PHASE = ByDatabases("two-phase commit", nosaga.two_phase)
SAGA = WithDatabase("a saga", plain.carry_out, wrong=False)
OTHER = Order("third", "customer-001", "product-01", 1, 500)


@pytest.fixture(scope="module")
def prepared(settings: Settings) -> Iterator[Endpoint]:
    """A Postgres that can prepare transactions."""
    with own_instance("postgres", settings, None, {"max_prepared_transactions": "20"}) as handle:
        yield handle.endpoint


@pytest.fixture
def site(postgres: Endpoint, unique: str) -> Iterator[Premises]:
    yield build(postgres, unique)
    for name in (*SERVICES, "own"):
        helpers.drop_schema(postgres, f"{unique}_{name}")


@pytest.fixture
def two_phase(prepared: Endpoint, unique: str) -> Premises:
    """Its server is gone after the module, and its schemas with it."""
    return build(prepared, unique)


def kill(folder: Path, target: Callable[..., None], *arguments: object, window: StrEnum) -> None:
    """Run it in a process that dies in the window."""
    history = folder / "history.jsonl"
    with Worker("victim", folder / "victim.log", target, *arguments, RecordedKill(window, history=history)) as worker:
        worker.wait()
    require(History.read(history), f"SIGKILL {window}")


@pytest.mark.fault
@pytest.mark.parametrize("way", [CALLS, LOCK], ids=str)
def test_killed_between_calls_an_order_stays_half_done(site: Premises, way: Way, tmp_path: Path) -> None:
    kill(tmp_path, die, site, way, FIRST, window=CallWindow.CHARGED)
    assert judge(site.shop).endings == {"first": Ending.INCONSISTENT}
    assert held_up(site, way, [SAME_CUSTOMER, OTHER]) == (["second"] if way == LOCK else [])


@pytest.mark.fault
def test_after_its_lease_others_go_on_beside_the_half_order_and_not_before(site: Premises, tmp_path: Path) -> None:
    kill(tmp_path, die, site, LEASE, FIRST, window=CallWindow.CHARGED)
    assert held_up(site, LEASE, others(site, FIRST, "early")) != []
    with helpers.connect(site.own) as locks:  # time goes by
        locks.execute("update locks set ends_at = clock_timestamp()")
    ends = ways.lock_ends(site, FIRST)
    ways.until_free(site)
    assert held_up(site, LEASE, others(site, FIRST, "late")) == []
    assert judge(site.shop).endings["first"] is Ending.INCONSISTENT
    assert ways.entered(site, FIRST, before=ends) == []


@pytest.fixture
def locks(schema: str) -> Iterator[Connection]:
    with helpers.connect(schema) as connection:
        connection.execute(nosaga.LOCKS)
        yield connection


def test_a_lock_keeps_others_out_until_it_is_given_back(locks: Connection) -> None:
    with lock(locks, ["account"], "first"):
        assert nosaga.lock_ends(locks, "first") == math.inf
        with pytest.raises(Locked, match="second: waited"), lock(locks, ["account"], "second"):
            pass
    with lock(locks, ["account"], "second"):
        assert nosaga.lock_ends(locks, "first") is None


def test_who_held_a_lock_beyond_its_lease_does_not_give_back_that_of_the_next(locks: Connection) -> None:
    with ExitStack() as things:
        with lock(locks, ["account"], "first", lease=0.0):
            things.enter_context(lock(locks, ["account"], "second"))
        assert nosaga.lock_ends(locks, "second") == math.inf


def test_two_phase_commit_does_nothing_of_an_order_that_is_refused(two_phase: Premises) -> None:
    assert cannot_pay(two_phase, TWO_PHASE) == (None, "")
    assert in_doubt(two_phase.shop) == []


@pytest.mark.parametrize("way", [CALLS, LOCK], ids=str)
def test_calls_in_a_row_stop_at_a_refusal_and_leave_what_came_before_it(site: Premises, way: Way) -> None:
    said = "unpaid: orders placed, stock reserved, payments nothing, shipping nothing"
    assert cannot_pay(site, way) == (Ending.INCONSISTENT, said)
    assert held_up(site, way, others(site, FIRST, "late")) == []


def test_saga_undoes_an_order_that_is_refused(site: Premises) -> None:
    assert cannot_pay(site, SAGA) == (Ending.COMPENSATED, "")


@pytest.mark.fault
def test_saga_killed_at_the_same_place_holds_nobody_up_and_is_taken_up_again(site: Premises, tmp_path: Path) -> None:
    kill(tmp_path, die, site, SAGA, FIRST, window=CallWindow.CHARGED)
    assert held_up(site, SAGA, [SAME_CUSTOMER, OTHER]) == []
    carry_out_all(site, [])
    assert judge(site.shop).endings == dict.fromkeys(("first", "second", "third"), Ending.COMPLETE)


def test_saga_that_nobody_can_read_or_carry_out_waits_with_its_reason_and_the_others_are_taken_up(
    site: Premises,
) -> None:
    rows = {**odd(OTHER), "huge": codec.encode(Order("huge", "customer-001", "product-01", 2**40, 1))}
    with connect(site.own) as log, site.shop.open() as services:
        for name, order in {"0": codec.encode(FIRST), **rows, "z": codec.encode(OTHER)}.items():
            log.execute(plain.BEGIN, [name, order])
        for _ in range(2):  # it starts anew over all of them
            plain.resume(log, services)
        waiting: dict[str, str] = dict(log.execute("select id, waits from sagas where waits is not null").fetchall())
    assert set(waiting) == set(rows)
    assert all(waiting.values())
    assert judge(site.shop).endings == {"first": Ending.COMPLETE, "third": Ending.COMPLETE}


def test_saga_under_seeded_failures_ends_consistent(site: Premises) -> None:
    site = replace(site, shop=replace(site.shop, fates=Fates(seed=5)))
    carry_out_all(site, orders(5, 20, World()))
    standing = judge(site.shop)
    assert standing.violations == []
    assert standing.count(Ending.COMPLETE) > 0 < standing.count(Ending.COMPENSATED)
    assert max(last - first for first, last in ways.spans(site.shop).values()) > 0


@pytest.mark.fault
def test_prepared_transactions_of_a_dead_coordinator_lock_until_they_are_ended_by_hand(
    two_phase: Premises, tmp_path: Path
) -> None:
    kill(tmp_path, die, two_phase, TWO_PHASE, FIRST, window=CommitWindow.PREPARED)
    assert judge(two_phase.shop).endings == {}
    assert held_up(two_phase, TWO_PHASE, [SAME_CUSTOMER, OTHER]) == ["second"]
    assert in_doubt(two_phase.shop) == [("first", service) for service in sorted(SERVICES)]
    assert resolve(two_phase.shop, "first", commit=True) == 4
    assert held_up(two_phase, TWO_PHASE, [SAME_CUSTOMER]) == []
    assert judge(two_phase.shop).endings == dict.fromkeys(("first", "second", "third"), Ending.COMPLETE)


@pytest.mark.fault
def test_who_waits_for_a_prepared_transaction_goes_on_when_it_is_ended(two_phase: Premises, tmp_path: Path) -> None:
    kill(tmp_path, die, two_phase, TWO_PHASE, FIRST, window=CommitWindow.PREPARED)
    with Worker("waiting", tmp_path / "waiting.log", ways.wait_for_turn, two_phase, SAME_CUSTOMER) as worker:
        assert ways.until_waiting(two_phase, seconds=0.05) == [("first", "payments")]
        assert resolve(two_phase.shop, "first", commit=False) == 4
        worker.wait()
    assert judge(two_phase.shop).endings == {"second": Ending.COMPLETE}


@pytest.mark.fault
def test_wrong_guess_by_hand_leaves_the_order_half_done(two_phase: Premises, tmp_path: Path) -> None:
    kill(tmp_path, die, two_phase, TWO_PHASE, FIRST, window=CommitWindow.COMMITTING)
    assert resolve(two_phase.shop, "first", commit=False) == 3
    assert judge(two_phase.shop).violations == [
        "first: orders placed, stock nothing, payments nothing, shipping nothing"
    ]


@pytest.mark.fault
def test_nothing_is_left_of_a_coordinator_that_dies_before_it_prepares(two_phase: Premises, tmp_path: Path) -> None:
    kill(tmp_path, die, two_phase, TWO_PHASE, FIRST, window=CommitWindow.WORKED)
    assert held_up(two_phase, TWO_PHASE, [SAME_CUSTOMER]) == []
    assert (in_doubt(two_phase.shop), judge(two_phase.shop).endings) == ([], {"second": Ending.COMPLETE})
