"""What does it take to undo a step: with what effect, in which order, how far, and what if it cannot be?

Popular compensations beside right ones, on the same orders: put back what was there before; undo in the
order of the steps; undo what reported success; log what could not be undone, and go on. They stand side by side in
saga/lessons: returning.py (BEFORE_IMAGE, EXACT, SEMANTIC) and compensating.py (answered, asked, undo_carelessly).
"""

from itertools import permutations

import msgspec
from saga.lessons import compensating, returning
from saga.lessons.compensating import answered, asked, asker, forward, standing, try_once, undo_carelessly
from saga.orchestrator import operator
from saga.orchestrator.definition import Retry, read
from saga.order import STEPS, Action, Outcome, World, orders
from saga.services import effects
from saga.services.invariant import Ending, judge
from saga.stage.compensation import intervene, stuck
from saga.stage.engines import Site, drive, wait
from saga.stage.engines.own import opened, schema_of
from saga.stage.fates import Fate, Fates, open_shop

from shared.experiment import Experiment, Run

SEMANTIC = "I.4/compensation-design/semantic-undo"
ORDERING = "I.4/compensation-design/compensation-ordering"
PARTIAL = "I.4/compensation-design/partial-compensation"
DEAD_LETTER = "I.4/error-handling/dead-letter-handling"
MANUAL = "I.4/error-handling/manual-intervention"
experiment = Experiment(
    title="Compensation: undo is business, not rollback",
    servers=("postgres", "kafka"),
    topics=(SEMANTIC, ORDERING, PARTIAL, DEAD_LETTER, MANUAL),
)
BACKWARDS, FORWARDS = STEPS[::-1], STEPS


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=16, demo=80, full=200)
    few = count // 4
    run.parameters["orders"] = count
    with run.step("put back what was there before, while the customer goes on buying"):
        put_back(run, few)
    with run.step("have everything sent back, and sell it again"):
        send_back(run, count)
    with run.step("undo in every order that there is, and what cannot be recalled"):
        undo_in_every_order(run)
        undo_what_is_delivered(run, few)
    with run.step("undo as far as the saga came"):
        undo_as_far_as_it_came(run, few)
    with run.step("a compensation that fails for good"):
        log_and_go_on(run, few)
        park_and_mend(run, few)


def put_back(run: Run, few: int) -> None:
    """Two orders of each customer. The first is undone when the second is paid."""
    for variant, how in (("put the old balance back", returning.BEFORE_IMAGE), ("pay the sum back", effects.EFFECTS)):
        wrong = how is returning.BEFORE_IMAGE
        shop = open_shop(run, f"image{wrong:d}", world=World(customers=few))
        with compensating.opened(shop) as services:
            returning.pairs(services, shop.world, how, run.seed)
        found = judge(shop).violations
        text = f"{variant}: what other sagas charged in the meantime {'is wiped out' if wrong else 'stays'}"
        fact = found[0] if found else f"{few} orders undone, money and pieces conserved"
        run.claim(text, bool(found) is wrong, topics=[SEMANTIC], fact=fact, variant=variant, wrong_way=wrong)


def send_back(run: Run, count: int) -> None:
    texts = {
        "exact reverse": "the exact reverse sells pieces that are in a parcel or broken, and the shop pays the carrier",
        "fee and inspection": "a fee, and pieces that are for sale once they are inspected: books and shelf agree",
    }
    for variant, how in zip(texts, (returning.EXACT, returning.SEMANTIC), strict=True):
        wrong = how is returning.EXACT
        shop = open_shop(run, f"returns{wrong:d}", world=World(products=2, pieces=count // 2))
        with compensating.opened(shop) as services:
            found = returning.season(services, shop.world, how, run.seed, count)
        for when, vain in zip(("parcels on their way", "parcels inspected"), found.charged_in_vain, strict=True):
            name = "customers charged for what is not on the shelf"
            run.figure(name, vain, "customers", variant=variant, wrong_way=wrong, x=when, x_label="sold again")
        run.figure("carrier's bill that the shop bears", found.loss / 100, "euro", variant=variant, wrong_way=wrong)
        bad = (found.charged_in_vain[0], found.apart, found.loss)
        holds = (min(bad) > 0 if wrong else max(*bad, found.charged_in_vain[1]) == 0) and found.conserved
        fact = (
            f"{found.sent_back} orders sent back, {sum(found.charged_in_vain)} customers charged in vain, "
            f"books and shelf {found.apart} pieces apart, {found.loss / 100:.2f} euro lost"
        )
        run.claim(texts[variant], holds, topics=[SEMANTIC], fact=fact, variant=variant, wrong_way=wrong)


def undo_in_every_order(run: Run) -> None:
    """A complete order for each of the 24 ways to undo it, looked at after every compensation."""
    shop, ways = open_shop(run, "ways"), list(permutations(STEPS))
    with compensating.opened(shop) as services:
        made = list(orders(run.seed, len(ways), shop.world))
        for order in made:
            forward(asker(services), order)
        each = zip(made, ways, strict=True)
        seen = {steps: compensating.undo_watched(services, order, steps) for order, steps in each}
    for steps, variant in ((FORWARDS, "in the order of the steps"), (BACKWARDS, "backwards")):
        found, wrong = sorted(seen[steps]), steps is FORWARDS
        run.figure("illegal states on the way", len(found), "kinds", variant=variant, wrong_way=wrong)
        text = f"undone {variant}, an order {'is in states that nobody may see' if wrong else 'is always legal'}"
        fact = "; ".join(found) or "nothing illegal after any of 4 compensations"
        run.claim(text, bool(found) is wrong, topics=[ORDERING], fact=fact, variant=variant, wrong_way=wrong)
    legal = {steps for steps, found in seen.items() if not found}
    run.claim(
        "only compensations that do not depend on each other may change places: pieces and money, after the parcel",
        legal == {BACKWARDS, (Action.SHIP, Action.RESERVE, Action.CHARGE, Action.PLACE)},
        topics=[ORDERING],
        fact=f"{len(legal)} of {len(seen)} orders are legal at every moment",
    )


def undo_what_is_delivered(run: Run, few: int) -> None:
    """The parcel cannot be recalled any more: where that comes last, everything else is undone by then."""
    for steps, variant in ((FORWARDS, "in the order of the steps"), (BACKWARDS, "backwards")):
        wrong = steps is FORWARDS
        made = list(orders(run.seed, few, World()))
        fixed = {(order.id, Action.RECALL): Fate.BROKEN for order in made}
        shop = open_shop(run, f"delivered{wrong:d}", Fates(steps={}, undos={}, fixed=fixed))
        with compensating.opened(shop) as services:
            gifts = compensating.gifts(services, made, steps)
        run.figure("customers with the goods and the money", gifts, "customers", variant=variant, wrong_way=wrong)
        text = f"undone {variant}, a parcel that cannot be recalled {'is a gift' if wrong else 'stays paid'}"
        holds, fact = gifts == (few if wrong else 0), f"{gifts} of {few} customers have the goods and the money"
        run.claim(text, holds, topics=[ORDERING], fact=fact, variant=variant, wrong_way=wrong)


def undo_as_far_as_it_came(run: Run, few: int) -> None:
    """Sagas end at each step, by a refusal, and at two by an answer that is lost and not asked for again."""
    lost = [(step, Fate.ANSWER_LOST) for step in (Action.CHARGE, Action.SHIP)]
    ends = [(step, Fate.REFUSED) for step in STEPS] + lost
    for variant, which in (("undo what was answered", answered), ("undo what was asked", asked)):
        wrong = which is answered
        groups = {end: list(orders(run.seed, few, World(), f"{end[0]}-{end[1]}")) for end in ends}
        fixed = {(order.id, step): fate for (step, fate), made in groups.items() for order in made}
        shop = open_shop(run, f"partial{wrong:d}", Fates(steps={}, undos={}, fixed=fixed))
        with compensating.opened(shop) as services:
            undone = {f"{step} {fate}": try_once(services, made, which) for (step, fate), made in groups.items()}
        found = judge(shop).count(Ending.INCONSISTENT)
        run.figure("orders left half done", found, "orders", variant=variant, wrong_way=wrong)
        text = (
            "what nobody knows of is left as it is: paid, or on its way, with the order cancelled"
            if wrong
            else "as many steps are undone as may have been done, and no order is left half done"
        )
        holds = found == (2 * few if wrong else 0) and list(undone.values())[: len(STEPS)] == list(range(len(STEPS)))
        fact = f"{found} of {len(ends) * few} orders half done; undone after " + ", ".join(
            f"{end}: {number}" for end, number in undone.items()
        )
        run.claim(text, holds, topics=[PARTIAL], fact=fact, variant=variant, wrong_way=wrong)


def log_and_go_on(run: Run, few: int) -> None:
    made, fates = stuck(run.seed, few)
    shop = open_shop(run, "logged", fates)
    with compensating.opened(shop) as services:
        for order in made:
            undo_carelessly(asker(services), order, asked(forward(asker(services), order)))
    found = judge(shop)
    run.claim(
        "logged and forgotten: every saga counts as compensated, and its pieces are held for good",
        found.count(Ending.INCONSISTENT) == len(made),
        topics=[DEAD_LETTER],
        fact=f"{len(found.violations)} orders cancelled and still holding pieces, no list names them",
        variant="log it and go on",
        wrong_way=True,
    )


def park_and_mend(run: Run, few: int) -> None:
    """By our orchestrator: the saga waits for an operator, who retries all but one, which is done by hand."""
    made, fates = stuck(run.seed, few)
    fine = list(orders(run.seed, few, World(), "fine"))
    shop = open_shop(run, "parked", fates)
    # An attempt that is answered late would be given up with another reason than the service's own.
    definition = msgspec.structs.replace(read(), undo_timeout=30.0, undo_retry=Retry(attempts=3, first=0.05))
    site = Site(shop, run.name, run.endpoints, run.folder, run.worker, keep=run.keep)
    with opened(site, definition) as engine, shop.open() as now:
        ended = drive(engine, [order for pair in zip(made, fine, strict=True) for order in pair], 2 * few)
        parked = {saga for saga, end in ended.items() if end.outcome is Outcome.PARKED}
        states = [standing(now, order.id) for order in made]
        listed = operator.sagas(engine.client.store.connection, ["parked"], most=10**6)
        claim_parked(run, parked, states, {one.id: one.reason for one in listed})
        nonsense = intervene(engine, shop, made, fine[0])
        ended = wait(engine, parked)
    found, variant = judge(shop), "park it for an operator"
    run.claim(
        "mended and told to retry, or done by hand and told to skip: every parked saga ends, and the books agree",
        not found.violations and {end.outcome for end in ended.values()} == {Outcome.COMPENSATED} and bool(nonsense),
        topics=[MANUAL],
        fact=f"{few - 1} retried, 1 done by hand, {len(found.violations)} violations; nonsense is refused: {nonsense}",
        variant=variant,
    )
    if run.keep:
        run.output.say(f"as an operator sees it: lab saga list --all --schema {schema_of(run.name)}")


def claim_parked(run: Run, parked: set[str], states: list[dict[str, str]], listed: dict[str, str]) -> None:
    parking = run.about("park it for an operator")
    half = sum(state["payments"] == "refunded" and state["stock"] == "reserved" for state in states)
    parking.figure("sagas in the operator's list", len(listed), "sagas")
    parking.claim(
        "a compensation that fails for good is in the operator's list with its reason; the other sagas go on",
        parked == set(listed) and all("stuck" in saga and "broken" in reason for saga, reason in listed.items()),
        topics=[DEAD_LETTER],
        fact=f"{len(parked)} of {2 * len(states)} sagas parked: {next(iter(listed.values()), 'none')}",
    )
    parking.claim(
        "what was undone before it stays undone, what comes after it is not begun",
        half == len(parked) == len(states) and all(state["orders"] == "placed" for state in states),
        topics=[PARTIAL],
        fact=f"{half} orders refunded, still holding their pieces, and not cancelled",
    )


if __name__ == "__main__":
    experiment.main()
