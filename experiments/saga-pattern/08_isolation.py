"""Sagas are not isolated: what do they overwrite of what others have done, and what makes up for it?

Chance interleaves sagas after every local transaction; the popular way and each countermeasure get the same orders.
Shown for each: what it lets happen, and what it costs in waits, repeated reads and refusals. What differs is a method
of a few lines (saga/lessons/isolation.py: Overwriting, Commuting, Rereading, Holding).
"""

import random
from functools import partial

from msgspec import structs
from saga.lessons import isolation
from saga.lessons.compensating import opened
from saga.lessons.isolation import Commuting, Holding, Overwriting, Rereading
from saga.order import Action, Order, World, orders
from saga.stage.fates import Fate, Fates, open_shop

from shared.experiment import Experiment, Run

STEPWISE = "I.4/saga-fundamentals/sequence-of-local-transactions"
NO_LOCKS = "I.4/saga-fundamentals/no-distributed-locks"
experiment = Experiment(
    title="Isolation: what sagas see of each other",
    servers=("postgres",),
    topics=(STEPWISE, NO_LOCKS),
)
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


if __name__ == "__main__":
    experiment.main()
