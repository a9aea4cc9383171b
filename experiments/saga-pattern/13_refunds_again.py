"""A refund is delivered again: what prevents a second payment?

The process that refunds is killed before it acknowledges, and requests with lost answers are repeated, under each of
four guards: none (`unguarded`), an inbox by the id of the message (`by_message`), an inbox by the id of the operation
(`by_operation`), a look at the state of the charge (`by_state`). Each is a function of a few lines in
saga/lessons/redelivering.py.
"""

from saga.lessons.redelivering import by_message, by_operation, by_state, unguarded
from saga.stage.compensation import KILLS, Delivered, deliver_again

from shared.experiment import Experiment, Run

IDEMPOTENT = "I.4/compensation-design/idempotent-compensations"
experiment = Experiment(title="Compensation: a refund comes again", servers=("postgres",), topics=(IDEMPOTENT,))
GUARDS = {
    "no guard": unguarded,
    "inbox by message id": by_message,
    "inbox by operation id": by_operation,
    "state of the charge": by_state,
}


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=16, demo=80, full=200)
    run.parameters.update({"orders": count, "kills per guard": KILLS})
    with run.step("deliver refunds again: kill -9 before the acknowledgement, lose answers"):
        none, message, operation, state = deliver_again(run, GUARDS, count).values()
    claim(run, "no guard", "a refund that is delivered again is paid again", none, (KILLS, KILLS))
    text = "an inbox by message id stops a redelivered message, but not a repeated request"
    claim(run, "inbox by message id", text, message, (0, KILLS))
    text = "an inbox by the id of the operation pays once, whatever comes again"
    claim(run, "inbox by operation id", text, operation, (0, 0))
    text = "a refund that looks whether there is anything to refund pays once, too"
    claim(run, "state of the charge", text, state, (0, 0))


def claim(run: Run, variant: str, text: str, found: Delivered, expected: tuple[int, int]) -> None:
    about, name = run.about(variant, wrong_way=sum(expected) > 0, topics=[IDEMPOTENT]), "refunds paid twice"
    about.figure(name, found.killed, "refunds", x="killed before the acknowledgement", x_label="fault")
    about.figure(name, found.asked_again, "refunds", x="answer lost, asked again", x_label="fault")
    about.claim(
        text,
        (found.killed, found.asked_again) == expected and found.fired == KILLS and all(found.times.values()),
        fact=f"of {len(found.times)} refunds, {found.killed} paid twice by {found.fired} kills,"
        f" {found.asked_again} by {KILLS} lost answers",
    )


if __name__ == "__main__":
    experiment.main()
