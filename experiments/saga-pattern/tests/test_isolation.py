"""What interleaved sagas do to each other: the popular way loses or lies, each countermeasure holds at its price."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from msgspec import structs
from saga.lessons import isolation
from saga.lessons.compensating import GIFT, asker, breaches, forward, opened, standing
from saga.lessons.dirty_reads import (
    MARKED,
    PATIENT,
    GiveBack,
    Reports,
    promise_first,
    recall_first,
    refund_first,
    refused_in_vain,
    sale,
)
from saga.lessons.isolation import (
    Charging,
    Commuting,
    End,
    Holding,
    Livelock,
    Locks,
    Move,
    Overwriting,
    Rereading,
    Saga,
    interleave,
    missing,
    purchase,
)
from saga.order import Action, Order, World, orders
from saga.services import shop as shops
from saga.services.effects import EFFECTS, Effect
from saga.services.shop import Services
from saga.stage.fates import KIND, Fate, Fates
from saga.stage.fates import create as create_shop

from shared.servers.server import Endpoint

Opening = Callable[[World, Fates], Services]
OPENING = World().balance


def refusing(made: list[Order], action: Action) -> Fates:
    """Every second of these orders is refused this."""
    return Fates(steps={}, undos={}, fixed={(order.id, action): Fate.REFUSED for order in made[::2]})


def of_customer(made: list[Order]) -> list[Order]:
    return [structs.replace(order, customer="customer-000") for order in made]


@pytest.fixture
def opening(postgres: Endpoint, unique: str) -> Iterator[Opening]:
    """A function that opens the services of a world, with the tables of the semantic locks."""
    with ExitStack() as things:

        def open_services(world: World, fates: Fates = KIND) -> Services:
            services = things.enter_context(opened(create_shop(postgres, unique, fates, world)))
            isolation.prepare(services)
            return services

        yield open_services
    shops.drop(postgres, unique)


def test_the_same_seed_interleaves_the_same_way_and_every_saga_ends() -> None:
    def order_of(seed: int) -> list[int]:
        seen: list[int] = []

        def noted(number: int) -> Saga:
            for _ in range(3):
                seen.append(number)
                yield Move.DONE
            return End.COMPLETE

        tally = interleave(map(noted, range(6)), random.Random(seed), concurrent=3)
        assert tally.ends == {End.COMPLETE: 6}
        return seen

    assert order_of(1) == order_of(1) != order_of(2)


def test_no_more_sagas_are_open_than_allowed() -> None:
    open_now, most = set[int](), [0]

    def counted(number: int) -> Saga:
        open_now.add(number)
        most[0] = max(most[0], len(open_now))
        yield Move.DONE
        open_now.discard(number)
        return End.COMPLETE

    interleave(map(counted, range(20)), random.Random(1), concurrent=3)
    assert most == [3]


def test_sagas_that_only_wait_are_a_clear_error() -> None:
    def waiting() -> Saga:
        while True:
            yield Move.WAITED

    with pytest.raises(Livelock, match="1 sagas after 1000 turns"):
        interleave([waiting()], random.Random(1), concurrent=1)


@pytest.mark.parametrize(
    ("charging", "waits", "loses", "pays"),
    [
        (Overwriting(), True, True, None),
        (Commuting(), True, False, None),
        (Rereading(), True, False, Move.REREAD),
        (Holding(), True, False, Move.WAITED),
        (Holding(), False, False, End.REFUSED),
    ],
    ids=["overwrite", "commute", "reread", "hold and wait", "hold and refuse"],
)
def test_updates_of_one_account_are_lost_only_where_a_balance_is_overwritten(
    opening: Opening, charging: Charging, waits: bool, loses: bool, pays: Move | End | None
) -> None:
    made = of_customer(list(orders(3, 10, World())))
    services = opening(World(), refusing(made, Action.SHIP))
    locks = Locks(services)
    sagas = [purchase(services, order, charging, waits) for order in made]
    tally = interleave(sagas, random.Random(3), 5, locks)
    assert (missing(services.connections["payments"], "customer-000", OPENING) > 0) is loses
    assert {kind for kind in (Move.REREAD, Move.WAITED) if tally.turns[kind]} | (
        {End.REFUSED} if tally.ends[End.REFUSED] else set()
    ) == ({pays} if pays else set())
    assert locks.found == 0 < locks.turns


@pytest.mark.parametrize(("how", "wrong"), [(EFFECTS, True), (MARKED, False)], ids=["none", "semantic lock"])
def test_reports_and_refusals_build_on_what_is_undone_later_unless_it_is_marked(
    opening: Opening, how: Mapping[Action, Effect], wrong: bool
) -> None:
    made = list(orders(3, 20, World(products=1)))
    services = opening(World(products=1, pieces=30), refusing(made, Action.SHIP))
    reports = Reports(services, every=4)
    tally = interleave([sale(services, order, how) for order in made], random.Random(3), len(made), reports)
    false, left_out = reports.judge()
    assert (false > 0, refused_in_vain(services, made) > 0) == (wrong, wrong)
    assert (left_out > 0, tally.turns[Move.WAITED] > 0) == (not wrong, not wrong)


def test_no_mark_is_left_when_all_sagas_have_ended(opening: Opening) -> None:
    made = list(orders(3, 8, World()))
    services = opening(World(), refusing(made, Action.SHIP))
    interleave([sale(services, order, MARKED) for order in made], random.Random(3), 4)
    for service in ("stock", "payments"):
        assert services.connections[service].execute("select count(*) from unfinished").fetchone() == (0,)


@pytest.mark.parametrize("give_back", [refund_first, promise_first, recall_first])
def test_money_that_is_refunded_too_early_is_spent_and_cannot_be_taken_back(
    opening: Opening, give_back: GiveBack
) -> None:
    world = World(customers=16, balance=5_000)
    first, second = (
        [structs.replace(o, customer=c, cents=5_000) for c, o in zip(world.customer_names(), made, strict=True)]
        for made in (orders(3, 16, world, name) for name in ("first", "second"))
    )
    services = opening(world, refusing(first, Action.RECALL))
    for order in first:
        forward(asker(services), order)
    how = PATIENT if give_back is promise_first else EFFECTS
    sagas = [give_back(services, order) for order in first] + [sale(services, order, how) for order in second]
    tally = interleave(sagas, random.Random(3), 32)
    gifts = sum(GIFT in breaches(standing(services, order.id)) for order in first)
    assert (gifts > 0) is (give_back is refund_first)
    assert (gifts, tally.turns[Move.WAITED] > 0) == (tally.ends[End.IN_DEBT], give_back is promise_first)
