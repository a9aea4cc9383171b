"""A refund is delivered again: what keeps it from being paid again?

The process that refunds is killed before it acknowledges, and answers are lost and asked for again, under each guard:
none, an inbox by the id of the message, an inbox by the id of the operation, a look at the state of the charge. What
differs is one function: saga/lessons/redelivering.py, refund.
"""

from saga.lessons import compensating
from saga.lessons.redelivering import Guard
from saga.order import Action, Request, World, orders
from saga.services.shop import Shop
from saga.stage.compensation import enqueue, refunder
from saga.stage.fates import Fate, Fates, open_shop
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow

from shared.experiment import Experiment, Run

IDEMPOTENT = "I.4/compensation-design/idempotent-compensations"
experiment = Experiment(title="Compensation: a refund comes again", servers=("postgres",), topics=(IDEMPOTENT,))
KILLS = 3  # of the refunding process, under each guard


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=16, demo=80, full=200)
    run.parameters.update({"orders": count, "kills per guard": KILLS})
    with run.step("deliver refunds again: kill -9 before the acknowledgement, lose answers"):
        deliver_again(run, count)


def deliver_again(run: Run, count: int) -> None:
    """A queue of refunds under each guard: its process is killed at the first ones, answers of the last are lost."""
    made = {guard: list(orders(run.seed, count, World(), guard.name)) for guard in Guard}
    lost = {order.id for found in made.values() for order in found[-KILLS:]}
    fixed = {(ident, Action.REFUND): Fate.ANSWER_LOST for ident in lost}
    shop = open_shop(run, "refunds", Fates(steps={}, undos={}, fixed=fixed))
    kills = {
        guard: RecordedKill(EffectWindow.AFTER, nth=2, history=run.history_file(guard.name), process="refunds")
        for guard in Guard
    }
    queues = {guard: run.schema(f"_{guard.name.lower()}") for guard in Guard}
    with compensating.opened(shop) as services:
        for guard, found in made.items():
            for order in found:
                services(Request(order.id, Action.CHARGE, order))
            enqueue(queues[guard], [Request(order.id, Action.REFUND, order) for order in found])
    for faults in [kills] * KILLS + [dict[Guard, RecordedKill]()]:
        for worker in [run.worker(g.name, refunder, shop, queues[g], g, faults.get(g)) for g in Guard]:
            worker.wait()
    for guard in Guard:
        fired = run.judge(guard.name, variant=guard, fault=f"SIGKILL {EffectWindow.AFTER}").faults
        claim_delivered(run, shop, guard, lost, len(fired))


def claim_delivered(run: Run, shop: Shop, guard: Guard, lost: set[str], fired: int) -> None:
    texts = {
        Guard.NONE: "a refund that is delivered again is paid again",
        Guard.MESSAGE: "an inbox by message id stops a message that comes again, not a question that is asked again",
        Guard.OPERATION: "an inbox by the id of the operation pays once, whatever comes again",
        Guard.STATE: "a refund that looks whether there is anything to refund pays once, too",
    }
    with shop.open() as services:
        query = "select order_id, refunded from charges where starts_with(order_id, %s)"
        times = dict[str, int](services.connections["payments"].execute(query, [guard.name]).fetchall())
    killed = sum(number - 1 for ident, number in times.items() if ident not in lost)
    again = sum(number - 1 for ident, number in times.items() if ident in lost)
    expected = {Guard.NONE: (KILLS, KILLS), Guard.MESSAGE: (0, KILLS)}.get(guard, (0, 0))
    wrong = sum(expected) > 0
    for cause, doubled in (("killed before the acknowledgement", killed), ("answer lost, asked again", again)):
        run.figure("refunds paid twice", doubled, "refunds", variant=guard, wrong_way=wrong, x=cause, x_label="fault")
    holds = (killed, again) == expected and fired == KILLS and all(times.values())
    fact = f"of {len(times)} refunds, {killed} paid twice by {fired} kills, {again} by {KILLS} lost answers"
    run.claim(texts[guard], holds, topics=[IDEMPOTENT], fact=fact, variant=guard, wrong_way=wrong)


if __name__ == "__main__":
    experiment.main()
