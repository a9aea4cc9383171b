"""The same order on Camunda and on Step Functions: which faults does the engine survive, and which are left to us?

Both do what their diagram says. What most diagrams do not say: that the step that failed may have been done, that a
saga which is out of time has to be undone, that a lock runs out. Each is shown as it is usually drawn
(saga/wrong/drawings.py: as_tutorials_draw_it, as_samples_catch, ask_without_a_key), and mended: by order.bpmn, by
order.asl.json, and by `ask` (saga/engines/camunda/worker.py).
"""

from functools import partial

from saga.engines.camunda.worker import ask
from saga.order import Outcome
from saga.stage import drawings
from saga.windows import EffectWindow
from saga.wrong.drawings import as_samples_catch, as_tutorials_draw_it, ask_without_a_key

from shared.experiment import Experiment, Run
from shared.threads import begin

CAMUNDA = "I.4/orchestration-tools/camunda"
STEP_FUNCTIONS = "I.4/orchestration-tools/aws-step-functions"
experiment = Experiment(
    title="Camunda and Step Functions: the same order, the same faults",
    servers=("postgres", "camunda", "moto"),
    topics=(CAMUNDA, STEP_FUNCTIONS),
)
TOPICS = {drawings.CAMUNDA: CAMUNDA, drawings.STATES: STEP_FUNCTIONS}


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=4, demo=25, full=50)
    windows = run.pick((EffectWindow.AFTER,), tuple(EffectWindow), tuple(EffectWindow))
    run.parameters.update({"orders per engine and kill": count})
    for window in windows:
        with run.step(f"a seeded schedule of failures, and a worker of each engine killed {window}"):
            for name, survived in drawings.kill_workers(run, window, count).items():
                claim_schedule(run, name, window, survived)
    cases = drawings.open_cases(run, count)
    late = begin(partial(drawings.out_of_time, run, cases))  # it waits, and asks nothing of Camunda
    with run.step("the payment is made, its answer is lost, and nobody asks again"):
        failed_step(run, cases)
    with run.step("Camunda: the worker dies after the payment, and the time is up"):
        outcome = drawings.out_of_time_on_camunda(run, cases)
    with run.step("Camunda: the work takes longer than the lock"):
        short_lock(run, cases)
    for name, topic in TOPICS.items():
        with run.step(f"{name}: orders that nobody can read, among others"):
            drawings.claim_unreadable(run, name, topic)
    with run.step("Step Functions: the worker dies after the payment, and the time is up"):
        claim_times(run, cases, outcome, late.result())


def claim_schedule(run: Run, name: str, window: EffectWindow, survived: drawings.Survived) -> None:
    engine, standing = run.about(name, topics=[TOPICS[name]]), survived.standing
    completed, seconds = survived.completed, [end.seconds for end in survived.ended.values()]
    engine.figure("time of a saga", seconds, "s", x=window, x_label="killed")
    engine.claim(
        f"{name}, a worker killed {window}: every order ends complete everywhere or undone everywhere",
        not standing.violations and len(standing.complete) == completed and 0 < completed < len(seconds),
        fact=f"{completed} of {len(seconds)} complete, {len(standing.violations)} violations",
    )


def failed_step(run: Run, cases: drawings.Cases) -> None:
    """As it is drawn, and as our files have it: who undoes the payment, and when is what undone?"""
    diagrams = {"drawn": as_tutorials_draw_it(), "mended": None}
    machines = {"caught": as_samples_catch, "mended-catch": None}
    left = drawings.lose_answers(run, cases, diagrams, machines)
    claim_order(run, left["drawn"], wrong=True)
    claim_order(run, left["mended"], wrong=False)
    for engine, case, wrong in (
        (drawings.CAMUNDA, "drawn", True),
        (drawings.CAMUNDA, "mended", False),
        (drawings.STATES, "caught", True),
        (drawings.STATES, "mended-catch", False),
    ):
        claim_undone(run, cases, engine, left[case], wrong)
    mended = left["mended"]
    run.about(drawings.CAMUNDA, topics=[CAMUNDA]).claim(
        "Camunda calls a compensated saga COMPLETED: its diagram has to note how it ended",
        (mended.state, mended.outcome) == ("COMPLETED", Outcome.COMPENSATED),
        fact=f"state {mended.state}, variable outcome {mended.outcome}",
    )


def claim_order(run: Run, left: drawings.Left, wrong: bool) -> None:
    run.about("Camunda, as usually drawn" if wrong else "Camunda", wrong_way=wrong, topics=[CAMUNDA]).claim(
        "one throw event for all: Camunda hands out all compensations at once, in no order"
        if wrong
        else "a throw event for each: Camunda has one compensation done after the other, in reverse",
        left.at_once is wrong,
        fact=f"{' and '.join(drawings.UNDONE)} {'overlap' if left.at_once else 'follow each other'}",
    )


def claim_undone(run: Run, cases: drawings.Cases, engine: str, left: drawings.Left, wrong: bool) -> None:
    standing, variant = cases.standing(), f"{engine}, as usually drawn" if wrong else engine
    run.about(variant, wrong_way=wrong, topics=[TOPICS[engine]]).claim(
        f"{engine}: only the steps before the failed one are undone, and the customer has paid for nothing"
        if wrong
        else f"{engine}: the step that failed is undone as well, whether it was done or not",
        left.order.id in (standing.inconsistent if wrong else standing.compensated),
        fact="; ".join(drawings.said(standing, left.order)) or "all undone",
    )


def short_lock(run: Run, cases: drawings.Cases) -> None:
    asked, charged = drawings.outlast_lock(run, cases, "keyless", ask_without_a_key)
    run.about("no idempotency key", wrong_way=True, topics=[CAMUNDA]).claim(
        "Camunda: a lock that is shorter than the work hands a step out twice, and the customer pays twice",
        charged == asked >= 2,
        fact=f"asked {asked} times, charged {charged} times",
    )
    asked, charged = drawings.outlast_lock(run, cases, "keyed", ask)
    run.about("idempotency key", topics=[CAMUNDA]).claim(
        "Camunda: the step is handed out twice all the same, and the idempotency key makes it one payment",
        charged == 1 and asked >= 2,
        fact=f"asked {asked} times, charged {charged} times",
    )


def claim_times(run: Run, cases: drawings.Cases, outcome: Outcome, ends: dict[str, tuple[str, int]]) -> None:
    """A saga's own timer on Camunda; on Step Functions, a timeout of the whole machine, and one of each step."""
    for name in ("timer", "whole", "step"):
        run.judge(name, variant=name, wrong_way=name == "whole", fault=f"SIGKILL {EffectWindow.AFTER}")
    standing = cases.standing()
    timer, whole, step = (drawings.one(run, name) for name in ("timer", "whole", "step"))
    run.about(drawings.CAMUNDA, topics=[CAMUNDA]).claim(
        "Camunda: a timer within the saga gives up and undoes all, the payment of which nobody knows included",
        outcome is Outcome.COMPENSATED and timer.id in standing.compensated,
        fact=f"{outcome}; in the services: {standing.endings[timer.id]}",
    )
    status, _ = ends["whole"]
    run.about("Step Functions, timeout of the machine", wrong_way=True, topics=[STEP_FUNCTIONS]).claim(
        "Step Functions: a state machine that is out of time stops where it is, and undoes nothing",
        status == "TIMED_OUT" and whole.id in standing.inconsistent,
        fact=f"{status}; {'; '.join(drawings.said(standing, whole))}",
    )
    status, late = ends["step"]
    _, charged = drawings.attempts(cases, step)
    run.about(drawings.STATES, topics=[STEP_FUNCTIONS]).claim(
        "Step Functions: a step that is out of time is asked for again, and done once",
        status == "SUCCEEDED" and step.id in standing.complete and charged == 1 and late > 0,
        fact=f"{status}; attempts out of time: {late}; charged: {charged};"
        f" in the services: {standing.endings[step.id]}",
    )


if __name__ == "__main__":
    experiment.main()
