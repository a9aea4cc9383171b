"""Sagas that chance interleaves: charges of the same accounts, a sale that is half undone, refunds that are spent."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from saga.lessons import isolation
from saga.lessons.compensating import GIFT, asker, breaches, forward, opened, standing
from saga.lessons.dirty_reads import GiveBack, Reports, refused_in_vain, sale
from saga.lessons.isolation import Approach, Result, Tally
from saga.order import Action, Order, World, orders
from saga.services.effects import Effect
from saga.services.invariant import judge
from saga.stage.fates import Fate, Fates, open_shop
from shared.run import Run

PRICE = 5_000  # cents of an order that takes all of a small account
EVERY = 5  # turns between two reports
Effects = Mapping[Action, Effect]


def refusing(made: Sequence[Order], action: Action, *every: int) -> Fates:
    """Nothing happens but that every so-manieth order is refused this action."""
    fixed = {(order.id, action): Fate.REFUSED for number in every for order in made[::number]}
    return Fates(steps={}, undos={}, fixed=fixed)


def charge(
    run: Run, ways: Sequence[Approach], sizes: Sequence[int], count: int
) -> tuple[dict[tuple[Approach, int], Result], isolation.Locks]:
    """Every way, with the charges spread over few accounts or many. A quarter of the orders is undone.

    Returns also what was seen of the database's locks.
    """
    cases = {(way, size): spread(run, f"{ways.index(way)}-{size}", size, count) for way in ways for size in sizes}
    made = [order for some in cases.values() for order in some[::4]]
    shop = open_shop(run, "lost", refusing(made, Action.SHIP, 1))
    with opened(shop) as services:
        isolation.prepare(services)
        locks, seed = isolation.Locks(services), run.seed
        return {
            (way, size): isolation.charge_all(services, way, some, random.Random(seed), locks)
            for (way, size), some in cases.items()
        }, locks


def spread(run: Run, prefix: str, size: int, count: int) -> list[Order]:
    """Orders of so many customers, whose names and ids tell the case."""
    made = orders(run.seed, count, World(), prefix)
    return [structs.replace(order, customer=f"{prefix} {number % size}") for number, order in enumerate(made)]


@dataclass(frozen=True)
class Sold:
    """What was read of a sale while it went on, and what came of it."""

    false: int  # lines of reports that were undone later
    left_out: int  # true lines that reports lack
    reports: int
    in_vain: int  # orders that were refused for want of pieces that are free in the end
    tally: Tally
    violations: list[str]


def sell(run: Run, name: str, how: Effects, count: int) -> Sold:
    """All want to buy at once, two of five are undone in the end; reports are made all the time."""
    made = list(orders(run.seed, count, World(products=2)))
    shop = open_shop(run, name, refusing(made, Action.SHIP, 4, 5), World(products=2, pieces=count // 2))
    with opened(shop) as services:
        isolation.prepare(services)
        reports = Reports(services, EVERY)
        sagas = [sale(services, order, how) for order in made]
        tally = isolation.interleave(sagas, random.Random(run.seed), count, reports)
        false, left_out = reports.judge()
        vain = refused_in_vain(services, made)
    return Sold(false, left_out, len(reports.paid), vain, tally, judge(shop).violations)


def spend_refunds(run: Run, give_back: GiveBack, how: Effects, count: int) -> tuple[int, Tally]:
    """Each customer sends back an order and spends the refund; half of the parcels are delivered and stay paid.

    Returns how many customers have the goods and the money, and what came of the sagas.
    """
    world = World(customers=count, balance=PRICE)
    first, second = (
        [structs.replace(o, customer=c, cents=PRICE) for c, o in zip(world.customer_names(), made, strict=True)]
        for made in (orders(run.seed, count, world, name) for name in ("first", "second"))
    )
    shop = open_shop(run, give_back.__name__, refusing(first, Action.RECALL, 2), world)
    with opened(shop) as services:
        isolation.prepare(services)
        for order in first:
            forward(asker(services), order)
        pairs = zip(first, second, strict=True)
        sagas = [saga for back, new in pairs for saga in (give_back(services, back), sale(services, new, how))]
        tally = isolation.interleave(sagas, random.Random(run.seed), len(sagas))
        return sum(GIFT in breaches(standing(services, order.id)) for order in first), tally
