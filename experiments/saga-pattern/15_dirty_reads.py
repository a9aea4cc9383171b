"""What do others take for granted that a saga undoes later, and what keeps them from it?

Chance interleaves sagas after every local transaction. Reports and buyers see what is not finished; refunds are spent
before they are taken back. What differs are effects (saga/lessons/dirty_reads.py: EFFECTS, MARKED, PATIENT), and the
order of steps (Giving).
"""

import random
from collections.abc import Mapping
from functools import partial

from msgspec import structs
from saga.lessons import isolation
from saga.lessons.compensating import GIFT, asker, breaches, forward, opened, standing
from saga.lessons.dirty_reads import MARKED, PATIENT, Giving, Reports, give_back, refused_in_vain, sale
from saga.order import Action, Order, World, orders
from saga.services.effects import EFFECTS, Effect
from saga.services.invariant import judge
from saga.stage.fates import Fate, Fates, open_shop

from shared.experiment import Experiment, Run

COMPENSATION = "I.4/saga-fundamentals/compensation-for-rollback"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(title="Isolation: dirty reads", servers=("postgres",), topics=(COMPENSATION, EVENTUAL))
NONE, LOCK = "no countermeasure", "semantic lock"
PRICE = 5_000  # cents of an order that takes all of a small account
EVERY = 5  # turns between two reports


@experiment.run
def main(run: Run) -> None:
    with run.step("a sale of which many orders are undone: dirty reads"):
        dirty_reads(run, run.pick(smoke=30, demo=80, full=200))
    with run.step("refunds that are taken back: money that is spent by then"):
        debts(run, run.pick(smoke=40, demo=60, full=150))


def ends_badly(made: list[Order], action: Action, every: int) -> dict[tuple[str, Action], Fate]:
    """Every so-manieth order is refused this action."""
    return {(order.id, action): Fate.REFUSED for order in made[::every]}


def dirty_reads(run: Run, count: int) -> None:
    """All want to buy at once, two of five are undone in the end; reports are made all the time."""
    for variant, how in ((NONE, EFFECTS), (LOCK, MARKED)):
        made = list(orders(run.seed, count, World(products=2)))
        fates = Fates(steps={}, undos={}, fixed=ends_badly(made, Action.SHIP, 4) | ends_badly(made, Action.SHIP, 5))
        shop = open_shop(run, f"dirty{how is MARKED:d}", fates, World(products=2, pieces=count // 2))
        with opened(shop) as services:
            isolation.prepare(services)
            reports = Reports(services, EVERY)
            sagas = [sale(services, order, how) for order in made]
            tally = isolation.interleave(sagas, random.Random(run.seed), count, reports)
            false, left_out = reports.judge()
            vain = refused_in_vain(services, made)
        waits, wrong = tally.turns[isolation.Turn.WAITED], how is EFFECTS
        figure = partial(run.figure, variant=variant, wrong_way=wrong)
        figure("lines of reports that were undone later", false, "lines")
        figure("true lines that reports lack", left_out, "lines")
        figure("orders refused in vain", vain, "orders")
        figure("waits of a saga", waits / count, "turns")
        texts = (
            "a report counts what is undone later, and no compensation takes that back"
            if wrong
            else "a report that leaves out what is unfinished says nothing that is undone later; it lags",
            "orders are refused for want of pieces that are free again in the end"
            if wrong
            else "who wants what an unfinished saga holds waits, and no order is refused in vain",
        )
        facts = (
            f"{false} false lines in {len(reports.paid)} reports, {left_out} true lines not there yet",
            f"{vain} of {count} orders refused in vain, {waits} waits, {tally.ends[isolation.End.COMPLETE]} complete",
        )
        holds = false > 0 if wrong else (false == 0 < left_out), vain > 0 if wrong else (vain == 0 < waits)
        rest = not judge(shop).violations
        for text, fact, held, topic in zip(texts, facts, holds, (EVENTUAL, COMPENSATION), strict=True):
            run.claim(text, held and rest, topics=[topic], fact=fact, variant=variant, wrong_way=wrong)


def debts(run: Run, count: int) -> None:
    """Each customer sends back an order and spends the refund; half of the parcels are delivered and stay paid."""
    world = World(customers=count, balance=PRICE)
    for giving in Giving:
        first, second = (
            [structs.replace(o, customer=c, cents=PRICE) for c, o in zip(world.customer_names(), made, strict=True)]
            for made in (orders(run.seed, count, world, name) for name in ("first", "second"))
        )
        fates = Fates(steps={}, undos={}, fixed=ends_badly(first, Action.RECALL, every=2))
        shop = open_shop(run, giving.name.lower(), fates, world)
        with opened(shop) as services:
            isolation.prepare(services)
            for order in first:
                forward(asker(services), order)
            how: Mapping[Action, Effect] = PATIENT if giving is Giving.PROMISE_FIRST else EFFECTS
            pairs = zip(first, second, strict=True)
            sagas = [
                saga for back, new in pairs for saga in (give_back(services, back, giving), sale(services, new, how))
            ]
            tally = isolation.interleave(sagas, random.Random(run.seed), len(sagas))
            gifts = sum(GIFT in breaches(standing(services, order.id)) for order in first)
        claim_debts(run, giving, gifts, tally)


def claim_debts(run: Run, giving: Giving, gifts: int, tally: isolation.Tally) -> None:
    wrong, waits, refused = (
        giving is Giving.REFUND_FIRST,
        tally.turns[isolation.Turn.WAITED],
        tally.ends[isolation.End.REFUSED],
    )
    figure = partial(run.figure, variant=giving, wrong_way=wrong)
    figure("customers with the goods and the money", gifts, "customers")
    figure("waits for a promised refund", waits, "turns")
    figure("orders refused for want of money", refused, "orders")
    texts = {
        Giving.REFUND_FIRST: "a refund that is seen is spent: it cannot be taken back when the recall fails",
        Giving.PROMISE_FIRST: "semantic lock: a promised refund is no money yet, who wants to spend it waits",
        Giving.RECALL_FIRST: "pessimistic view: the step that can fail comes first, and costs no wait",
    }
    costs = {Giving.REFUND_FIRST: True, Giving.PROMISE_FIRST: waits > 0, Giving.RECALL_FIRST: waits == 0}
    run.claim(
        texts[giving],
        (gifts > 0) is wrong
        and gifts == tally.ends[isolation.End.IN_DEBT]
        and costs[giving]
        and tally.ends[isolation.End.COMPLETE] > 0,
        topics=[COMPENSATION],
        fact=f"{gifts} customers with the goods and the money, {waits} waits, {refused} orders refused",
        variant=giving,
        wrong_way=wrong,
    )


if __name__ == "__main__":
    experiment.main()
