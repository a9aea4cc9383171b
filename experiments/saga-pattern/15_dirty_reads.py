"""Others rely on data that a saga undoes later: what goes wrong, and what prevents it?

After every local transaction, a seeded random choice decides which saga goes on. Reports and buyers see unfinished
work; refunds are spent before they are taken back. The ways differ in effects (EFFECTS of saga/services/effects.py,
beside MARKED and PATIENT) and in the order of steps (refund_first, promise_first, recall_first), all in
saga/lessons/dirty_reads.py.
"""

from saga.lessons.dirty_reads import MARKED, PATIENT, promise_first, recall_first, refund_first
from saga.lessons.isolation import End, Move, Tally
from saga.services.effects import EFFECTS
from saga.stage import interleavings

from shared.experiment import Experiment, Run

COMPENSATION = "I.4/saga-fundamentals/compensation-for-rollback"
EVENTUAL = "I.4/saga-fundamentals/eventual-consistency"
experiment = Experiment(title="Isolation: dirty reads", servers=("postgres",), topics=(COMPENSATION, EVENTUAL))


@experiment.run
def main(run: Run) -> None:
    with run.step("a sale of which many orders are undone: dirty reads"):
        dirty_reads(run, run.pick(smoke=30, demo=80, full=200))
    with run.step("refunds that are taken back: money that is spent by then"):
        debts(run, run.pick(smoke=40, demo=60, full=150))


def dirty_reads(run: Run, count: int) -> None:
    """All want to buy at once, two of five are undone in the end; reports are made all the time."""
    for variant, how in (("no countermeasure", EFFECTS), ("semantic lock", MARKED)):
        wrong = how is EFFECTS
        about, sold = run.about(variant, wrong_way=wrong), interleavings.sell(run, f"dirty{not wrong:d}", how, count)
        waits, complete, rest = sold.tally.turns[Move.WAITED], sold.tally.ends[End.COMPLETE], not sold.violations
        about.figure("lines of reports that were undone later", sold.false, "lines")
        about.figure("true lines that reports lack", sold.left_out, "lines")
        about.figure("orders refused in vain", sold.in_vain, "orders")
        about.figure("waits of a saga", waits / count, "turns")
        about.claim(
            "a report counts what is undone later, and no compensation takes that back"
            if wrong
            else "a report that leaves out what is unfinished says nothing that is undone later; it lags",
            rest and (sold.false > 0 if wrong else (sold.false == 0 < sold.left_out)),
            topics=[EVENTUAL],
            fact=f"{sold.false} false lines in {sold.reports} reports, {sold.left_out} true lines not there yet",
        )
        about.claim(
            "orders are refused for want of pieces that are free again in the end"
            if wrong
            else "who wants what an unfinished saga holds waits, and no order is refused in vain",
            rest and (sold.in_vain > 0 if wrong else (sold.in_vain == 0 < waits)),
            topics=[COMPENSATION],
            fact=f"{sold.in_vain} of {count} orders refused in vain, {waits} waits, {complete} complete",
        )


def debts(run: Run, count: int) -> None:
    """Each customer sends back an order and spends the refund; half of the parcels are delivered and stay paid."""
    early, tally = interleavings.spend_refunds(run, refund_first, EFFECTS, count)
    text = "a refund that is seen is spent: it cannot be taken back when the recall fails"
    claim_debts(run, "refund, then recall", text, early, tally, early > 0)
    gifts, tally = interleavings.spend_refunds(run, promise_first, PATIENT, count)
    text = "semantic lock: a promised refund is not money yet; whoever wants to spend it waits"
    claim_debts(run, "promise, recall, refund", text, gifts, tally, gifts == 0 < tally.turns[Move.WAITED])
    gifts, tally = interleavings.spend_refunds(run, recall_first, EFFECTS, count)
    text = "pessimistic view: the step that can fail comes first, and costs no wait"
    claim_debts(run, "recall, then refund", text, gifts, tally, gifts == 0 == tally.turns[Move.WAITED])


def claim_debts(run: Run, variant: str, text: str, gifts: int, tally: Tally, holds: bool) -> None:
    waits, refused = tally.turns[Move.WAITED], tally.ends[End.REFUSED]
    about = run.about(variant, wrong_way=variant == "refund, then recall", topics=[COMPENSATION])
    about.figure("customers with the goods and the money", gifts, "customers")
    about.figure("waits for a promised refund", waits, "turns")
    about.figure("orders refused for want of money", refused, "orders")
    about.claim(
        text,
        holds and gifts == tally.ends[End.IN_DEBT] and tally.ends[End.COMPLETE] > 0,
        fact=f"{gifts} customers with the goods and the money, {waits} waits, {refused} orders refused",
    )


if __name__ == "__main__":
    experiment.main()
