"""What does it take to undo a step: with what effect, in which order, how far, and what if it cannot be undone?

Popular compensations beside right ones, on the same orders. Each time, one argument differs: the effects (BEFORE_IMAGE,
which writes back the old value, and EXACT beside SEMANTIC, in saga/lessons/returning.py); the order in which steps are
undone; which steps are undone (answered or asked); and what happens when one cannot be undone (undo_carelessly, in
saga/lessons/compensating.py, beside the operator's list, in saga/orchestrator/operator.py).
"""

from saga.lessons.compensating import answered, asked, undo_carelessly
from saga.lessons.returning import BEFORE_IMAGE, EXACT, SEMANTIC
from saga.order import STEPS, Action, Outcome
from saga.services.effects import EFFECTS
from saga.stage import compensation

from shared.experiment import Experiment, Run

UNDO, ORDERING = "I.4/compensation-design/semantic-undo", "I.4/compensation-design/compensation-ordering"
PARTIAL = "I.4/compensation-design/partial-compensation"
DEAD_LETTER, MANUAL = "I.4/error-handling/dead-letter-handling", "I.4/error-handling/manual-intervention"
experiment = Experiment(
    title="Compensation: undo is business, not rollback",
    servers=("postgres", "kafka"),
    topics=(UNDO, ORDERING, PARTIAL, DEAD_LETTER, MANUAL),
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
    for variant, how in (("put the old balance back", BEFORE_IMAGE), ("pay the sum back", EFFECTS)):
        wrong = how is BEFORE_IMAGE
        found = compensation.put_back(run, f"image{wrong:d}", how, few)
        run.about(variant, wrong_way=wrong, topics=[UNDO]).claim(
            f"{variant}: what other sagas charged in the meantime {'is wiped out' if wrong else 'stays'}",
            bool(found) is wrong,
            fact=found[0] if found else f"{few} orders undone, money and pieces conserved",
        )


def send_back(run: Run, count: int) -> None:
    texts = {
        "exact reverse": "the exact reverse sells pieces that are in a parcel or broken, and the shop pays the carrier",
        "fee and inspection": "a fee, and pieces that are for sale once they are inspected: books and shelf agree",
    }
    for variant, how in zip(texts, (EXACT, SEMANTIC), strict=True):
        wrong = how is EXACT
        about = run.about(variant, wrong_way=wrong, topics=[UNDO])
        found = compensation.send_back(run, f"returns{wrong:d}", how, count)
        for when, vain in zip(("parcels on their way", "parcels inspected"), found.charged_in_vain, strict=True):
            name = "customers charged for what is not on the shelf"
            about.figure(name, vain, "customers", x=when, x_label="sold again")
        about.figure("carrier's bill that the shop bears", found.loss / 100, "euro")
        bad = (found.charged_in_vain[0], found.apart, found.loss)
        about.claim(
            texts[variant],
            (min(bad) > 0 if wrong else max(*bad, found.charged_in_vain[1]) == 0) and found.conserved,
            fact=f"{found.sent_back} orders sent back, {sum(found.charged_in_vain)} customers charged in vain, "
            f"books and shelf {found.apart} pieces apart, {found.loss / 100:.2f} euro lost",
        )


def undo_in_every_order(run: Run) -> None:
    """A complete order for each of the 24 ways to undo it, looked at after every compensation."""
    seen = compensation.undo_in_every_order(run)
    for steps, variant in ((FORWARDS, "in the order of the steps"), (BACKWARDS, "backwards")):
        found, wrong = sorted(seen[steps]), steps is FORWARDS
        about = run.about(variant, wrong_way=wrong, topics=[ORDERING])
        about.figure("illegal states on the way", len(found), "kinds")
        about.claim(
            f"undone {variant}, an order {'is in states that nobody may see' if wrong else 'is always legal'}",
            bool(found) is wrong,
            fact="; ".join(found) or "nothing illegal after any of 4 compensations",
        )
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
        about = run.about(variant, wrong_way=wrong, topics=[ORDERING])
        gifts = compensation.undo_what_is_delivered(run, f"delivered{wrong:d}", steps, few)
        about.figure("customers with the goods and the money", gifts, "customers")
        about.claim(
            f"undone {variant}, a parcel that cannot be recalled {'is a gift' if wrong else 'stays paid'}",
            gifts == (few if wrong else 0),
            fact=f"{gifts} of {few} customers have the goods and the money",
        )


def undo_as_far_as_it_came(run: Run, few: int) -> None:
    """Sagas end at each step, by a refusal, and at two by an answer that is lost and not asked for again."""
    for variant, which in (("undo what was answered", answered), ("undo what was asked", asked)):
        wrong = which is answered
        about = run.about(variant, wrong_way=wrong, topics=[PARTIAL])
        half, undone = compensation.undo_as_far(run, f"partial{wrong:d}", which, few)
        about.figure("orders left half done", half, "orders")
        about.claim(
            "only answered steps are undone: a step with a lost answer stays done, with the order cancelled"
            if wrong
            else "as many steps are undone as may have been done, and no order is left half done",
            half == (2 * few if wrong else 0) and list(undone.values())[: len(STEPS)] == list(range(len(STEPS))),
            fact=f"{half} of {len(undone) * few} orders half done; undone after "
            + ", ".join(f"{end}: {number}" for end, number in undone.items()),
        )


def log_and_go_on(run: Run, few: int) -> None:
    found = compensation.undo_what_is_stuck(run, undo_carelessly, few)
    run.about("log it and go on", wrong_way=True, topics=[DEAD_LETTER]).claim(
        "logged and forgotten: every saga counts as compensated, and its pieces are held for good",
        len(found.inconsistent) == few,
        fact=f"{len(found.violations)} orders cancelled and still holding pieces, no list names them",
    )


def park_and_mend(run: Run, few: int) -> None:
    """By our orchestrator: the saga waits for an operator, who retries all but one, which is done by hand."""
    parking, mended = run.about("park it for an operator"), compensation.park_and_mend(run, few)
    parked, states, listed = mended.parked, mended.states, mended.listed
    parking.figure("sagas in the operator's list", len(listed), "sagas")
    parking.claim(
        "a compensation that fails for good is in the operator's list with its reason; the other sagas go on",
        parked == listed.keys() == mended.stuck and all("broken" in reason for reason in listed.values()),
        topics=[DEAD_LETTER],
        fact=f"{len(parked)} of {2 * few} sagas parked: {next(iter(listed.values()), 'none')}",
    )
    half = sum(state["payments"] == "refunded" and state["stock"] == "reserved" for state in states)
    parking.claim(
        "what was undone before it stays undone, what comes after it is not begun",
        half == len(parked) == few and all(state["orders"] == "placed" for state in states),
        topics=[PARTIAL],
        fact=f"{half} orders refunded, still holding their pieces, and not cancelled",
    )
    parking.claim(
        "mended and told to retry, or done by hand and told to skip: every parked saga ends, and the books agree",
        not mended.violations and mended.ended == {Outcome.COMPENSATED} and bool(mended.nonsense),
        topics=[MANUAL],
        fact=f"{few - 1} retried, 1 done by hand, {len(mended.violations)} violations;"
        f" nonsense is refused: {mended.nonsense}",
    )


if __name__ == "__main__":
    experiment.main()
