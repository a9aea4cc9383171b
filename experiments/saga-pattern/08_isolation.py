"""Sagas are not isolated: what do others see, and overwrite, before a saga is finished, and what makes up for it?

Chance interleaves sagas after every local transaction; the popular way and each countermeasure get the same orders.
Shown for each: what it lets happen, and what it costs in waits, repeated reads and refusals. What differs is a method
of a few lines (saga/lessons/isolation.py: Overwriting, Commuting, Rereading, Holding) or an effect (dirty_reads.py).
"""

import random
from collections.abc import Mapping
from functools import partial

from msgspec import structs
from saga.lessons import isolation
from saga.lessons.compensating import GIFT, asker, breaches, forward, opened, standing
from saga.lessons.dirty_reads import MARKED, PATIENT, Giving, Reports, give_back, refused_in_vain, sale
from saga.lessons.isolation import Commuting, Holding, Overwriting, Rereading
from saga.order import Action, Order, World, orders
from saga.services.effects import EFFECTS, Effect
from saga.services.invariant import judge
from saga.stage.fates import Fate, Fates, open_shop

from shared.experiment import Experiment, Run

STEPWISE = "I.4/saga-fundamentals/sequence-of-local-transactions"
COMPENSATION = "I.4/saga-fundamentals/compensation-for-rollback"
NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(
    title="Isolation: what sagas see of each other",
    servers=("postgres",),
    topics=(STEPWISE, COMPENSATION, NO_LOCKS, EVENTUAL),
)
PRICE = 5_000  # cents of an order that takes all of a small account
EVERY = 5  # turns between two reports
NONE, LOCK = "no countermeasure", "semantic lock"


WAYS = (
    isolation.Way("read, then write", Overwriting()),
    isolation.Way("commutative update", Commuting()),
    isolation.Way("reread value", Rereading()),
    isolation.Way("semantic lock, others wait", Holding()),
    isolation.Way("semantic lock, others are refused", Holding(), waits=False),
)


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=20, demo=60, full=150)
    sizes = run.pick((1, 8), (1, 2, 5, 20), (1, 2, 5, 20, 50))
    run.parameters.update({"sagas per case": count, "at once": isolation.CONCURRENT})
    with run.step("sagas that charge the same accounts: lost updates"):
        lost_updates(run, count, sizes)
    with run.step("a sale of which many orders are undone: dirty reads"):
        dirty_reads(run, run.pick(smoke=30, demo=80, full=200))
    with run.step("refunds that are taken back: money that is spent by then"):
        debts(run, run.pick(smoke=40, demo=60, full=150))


def ends_badly(made: list[Order], action: Action, every: int) -> dict[tuple[str, Action], Fate]:
    """Every so-manieth order is refused this action."""
    return {(order.id, action): Fate.REFUSED for order in made[::every]}


def lost_updates(run: Run, count: int, sizes: tuple[int, ...]) -> None:
    """Every way, with the charges spread over few accounts or many. A quarter of the orders is undone."""
    cases = {(way, size): case(run, way, size, count) for way in WAYS for size in sizes}
    fixed = {key: fate for made in cases.values() for key, fate in ends_badly(made, Action.SHIP, every=4).items()}
    shop, found = (
        open_shop(run, "lost", Fates(steps={}, undos={}, fixed=fixed)),
        dict[tuple[str, int], isolation.Outcome](),
    )
    with opened(shop) as services:
        isolation.prepare(services)
        locks = isolation.Locks(services)
        for (way, size), made in cases.items():
            found[way.name, size] = isolation.charge_all(services, way, made, random.Random(run.seed), locks)
    for (name, size), outcome in found.items():
        figure = partial(run.figure, variant=name, wrong_way=name == WAYS[0].name, x=size, x_label="accounts")
        figure("money that is not where the charges say", outcome.lost / 100, "euro")
        figure("extra turns of a saga", outcome.extra / count, "turns")
        figure("sagas refused", outcome.tally.ends[isolation.End.REFUSED], "sagas")
    claim_lost_updates(run, {way.name: found[way.name, 1] for way in WAYS}, found)
    run.claim(
        "a semantic lock is a row: no lock of the database is held between the steps of a saga",
        locks.found == 0 < locks.turns,
        topics=[NO_LOCKS],
        fact=f"{locks.found} locks held after {locks.turns:,} turns",
    )


def case(run: Run, way: isolation.Way, size: int, count: int) -> list[Order]:
    """Orders of so many customers, whose names and ids tell the case."""
    prefix = f"{WAYS.index(way)}-{size}"
    made = orders(run.seed, count, World(), prefix)
    return [structs.replace(order, customer=f"{prefix} {number % size}") for number, order in enumerate(made)]


def claim_lost_updates(
    run: Run, hot: dict[str, isolation.Outcome], found: dict[tuple[str, int], isolation.Outcome]
) -> None:
    overwriting, commuting, rereading, waiting, refusing = (hot[way.name] for way in WAYS)
    run.claim(
        "what a saga read in one step and writes in another overwrites what others charged in between",
        overwriting.lost > 0,
        topics=[STEPWISE],
        fact=f"{overwriting.lost / 100:,.2f} euro are not where the charges say",
        variant=WAYS[0].name,
        wrong_way=True,
    )
    costs = {
        WAYS[1].name: ("a change that commutes needs neither wait nor lock", commuting.extra == 0),
        WAYS[2].name: ("a value that is read again before it is written costs repeats", rereading.extra > 0),
        WAYS[3].name: ("a semantic lock costs the others waits", waiting.extra > 0),
        WAYS[4].name: ("a semantic lock that refuses costs orders", refusing.tally.ends[isolation.End.REFUSED] > 0),
    }
    for name, (text, cost) in costs.items():
        lost = sum(outcome.lost for (way, _), outcome in found.items() if way == name)
        run.claim(
            f"{text}, and nothing is lost",
            lost == 0 and cost,
            topics=[STEPWISE],
            fact=f"on one account: {hot[name].extra} extra turns and"
            f" {hot[name].tally.ends[isolation.End.REFUSED]} refusals of {hot[name].tally.ends.total()} sagas;"
            f" {lost} cents lost on any number of accounts",
            variant=name,
        )


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
