"""The same order on Camunda and on Step Functions: which faults does the engine survive, and which are left to us?

Both do what their diagram says. What most diagrams do not say: that the step that failed may have been done, that a
saga which is out of time has to be undone, that a lock runs out. Each is shown as it is usually drawn, and mended. As
it is drawn: saga/wrong/camunda_drawn.py, stepfunctions_catch.py and keyless.py.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from saga.engines.camunda.worker import Policy
from saga.engines.stepfunctions.client import Change
from saga.order import Action, Order, Outcome, World, orders
from saga.services.invariant import Ending, Standing, judge
from saga.stage import drawn as drawn_engines
from saga.stage.engines import Ended, Engine, Opener, Site, wait
from saga.stage.engines import camunda as camundas
from saga.stage.engines import stepfunctions as machines
from saga.stage.fates import FatedShop, open_shop
from saga.stage.foreign import Foreign
from saga.stage.foreign.camunda import Instances
from saga.stage.foreign.claimed import claim_foreign
from saga.stage.foreign.stepfunctions import Messages
from saga.stage.killing import RecordedKill
from saga.windows import EffectWindow
from saga.wrong import camunda_drawn as drawn

from shared.experiment import Experiment, Run
from shared.threads import begin

CAMUNDA = "I.4/orchestration-tools/camunda"
STEP_FUNCTIONS = "I.4/orchestration-tools/aws-step-functions"
experiment = Experiment(
    title="Camunda and Step Functions: the same order, the same faults",
    servers=("postgres", "camunda", "moto"),
    topics=(CAMUNDA, STEP_FUNCTIONS),
)
OPENERS: dict[str, Opener] = {
    "Camunda": partial(camundas.opened, policy=drawn_engines.HASTY),
    "Step Functions": partial(machines.opened, visible_again=1),
}
FOREIGN: dict[str, Callable[[Any], Foreign]] = {"Camunda": Instances, "Step Functions": Messages}
TOPICS = {"Camunda": CAMUNDA, "Step Functions": STEP_FUNCTIONS}
ONE = Policy(threads=1, batch=1, lock=60.0)  # a worker whose tasks nobody takes over while the experiment lasts
UNDONE = Action.RELEASE, Action.CANCEL  # by the engine, when the payment fails


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=4, demo=25, full=50)
    windows = run.pick((EffectWindow.AFTER,), tuple(EffectWindow), tuple(EffectWindow))
    run.parameters.update({"orders per engine and kill": count})
    for window in windows:
        with run.step(f"a seeded schedule of failures, and a worker of each engine killed {window}"):
            schedule(run, window, count)
    shop = open_shop(run, "cases", drawn_engines.cases(run, count))
    late = begin(partial(drawn_engines.out_of_time, run, shop))  # it waits, and asks nothing of Camunda
    with run.step("the payment is made, its answer is lost, and nobody asks again"):
        failed_step(run, shop)
    with run.step("Camunda: the worker dies after the payment, and the time is up"):
        outcome = out_of_time(run, shop)
    with run.step("Camunda: the work takes longer than the lock"):
        short_lock(run, shop)
    for name, foreign in FOREIGN.items():
        with run.step(f"{name}: orders that nobody can read, among others"):
            claim_foreign(run, name, OPENERS[name], foreign, [TOPICS[name]])
    with run.step("Step Functions: the worker dies after the payment, and the time is up"):
        claim_times(run, shop, outcome, late.result())


def schedule(run: Run, window: EffectWindow, count: int) -> None:
    """The same orders with the same fates on both; the first worker is killed, and a second one takes over."""
    wanted = list(orders(run.seed, count, World()))
    fates, sites = drawn_engines.mixed(run, wanted), dict[str, Site]()
    for name in OPENERS:
        kill = RecordedKill(
            window, history=run.history_file(drawn_engines.slug(name, window)), process=f"{name} worker"
        )
        shop = open_shop(run, f"{len(sites)}{len(run.histories)}", fates)
        sites[name] = drawn_engines.site_of(run, shop, drawn_engines.slug(name, window), kill=kill)
    ended = drawn_engines.carry_out(run, OPENERS, sites, wanted)
    for name, site in sites.items():
        run.judge(drawn_engines.slug(name, window), variant=name, fault=f"SIGKILL {window}")
        claim_schedule(run, name, window, ended[name], judge(site.shop))


def claim_schedule(run: Run, name: str, window: EffectWindow, ended: dict[str, Ended], standing: Standing) -> None:
    completed = sum(end.outcome is Outcome.COMPLETED for end in ended.values())
    run.figure("time of a saga", [end.seconds for end in ended.values()], "s", variant=name, x=window, x_label="killed")
    run.claim(
        f"{name}, a worker killed {window}: every order ends complete everywhere or undone everywhere",
        standing.violations == [] and standing.count(Ending.COMPLETE) == completed and 0 < completed < len(ended),
        topics=[TOPICS[name]],
        fact=f"{completed} of {len(ended)} complete, {len(standing.violations)} violations",
        variant=name,
    )


def failed_step(run: Run, shop: FatedShop) -> None:
    """As it is drawn, and as our files have it: who undoes the payment, and when is what undone?"""
    drawings = {"drawn": drawn.as_tutorials_draw_it(), "mended": None}
    changes: dict[str, Change] = {"caught": drawn_engines.samples, "mended-catch": drawn_engines.without_retries}
    with ExitStack() as stack:
        camunda = {
            way: stack.enter_context(camundas.opened(drawn_engines.site_of(run, shop, way), Policy(attempts=1), bpmn))
            for way, bpmn in drawings.items()
        }
        states = {
            way: stack.enter_context(machines.opened(drawn_engines.site_of(run, shop, way), change))
            for way, change in changes.items()
        }
        engines: dict[str, Engine] = {**camunda, **states}
        for way, engine in engines.items():
            engine.start(drawn_engines.one(run, way))
        outcomes = {way: wait(engine, [drawn_engines.one(run, way).id]) for way, engine in engines.items()}
        for way, engine in camunda.items():
            claim_order(run, engine, drawn_engines.one(run, way), wrong=way == "drawn")
        [instance] = camunda["mended"].camunda.instances([drawn_engines.one(run, "mended").id])
    standing = judge(shop)
    for way in engines:
        claim_undone(run, standing, drawn_engines.one(run, way), "Camunda" if way in drawings else "Step Functions")
    [end] = outcomes["mended"].values()
    run.claim(
        "Camunda calls a compensated saga COMPLETED: its diagram has to note how it ended",
        (instance.state, end.outcome) == ("COMPLETED", Outcome.COMPENSATED),
        topics=[CAMUNDA],
        fact=f"state {instance.state}, variable outcome {end.outcome}",
        variant="Camunda",
    )


def claim_order(run: Run, engine: camundas.CamundaEngine, order: Order, wrong: bool) -> None:
    at_once = drawn_engines.overlap(engine.camunda, order, *UNDONE)
    run.claim(
        "one throw event for all: Camunda hands out all compensations at once, in no order"
        if wrong
        else "a throw event for each: Camunda has one compensation done after the other, in reverse",
        at_once is wrong,
        topics=[CAMUNDA],
        fact=f"{' and '.join(UNDONE)} {'overlap' if at_once else 'follow each other'}",
        variant="Camunda, as usually drawn" if wrong else "Camunda",
        wrong_way=wrong,
    )


def claim_undone(run: Run, standing: Standing, order: Order, engine: str) -> None:
    wrong = order.id.startswith(("drawn", "caught"))
    run.claim(
        f"{engine}: only the steps before the failed one are undone, and the customer has paid for nothing"
        if wrong
        else f"{engine}: the step that failed is undone as well, whether it was done or not",
        standing.endings[order.id] is (Ending.INCONSISTENT if wrong else Ending.COMPENSATED),
        topics=[TOPICS[engine]],
        fact="; ".join(drawn_engines.said(standing, order)) or "all undone",
        variant=f"{engine}, as usually drawn" if wrong else engine,
        wrong_way=wrong,
    )


def out_of_time(run: Run, shop: FatedShop) -> Outcome:
    """On Camunda, by a timer of the saga. For Step Functions see drawn_engines.out_of_time."""
    site, order = drawn_engines.dying(run, shop, "timer"), drawn_engines.one(run, "timer")
    with camundas.opened(site, ONE) as engine:
        engine.start(order)
        engine.workers[0].wait()
        engine.camunda.hurry(order.id)
        with drawn_engines.second(run, site, engine, ONE):
            [end] = wait(engine, [order.id]).values()
    return end.outcome


def claim_times(run: Run, shop: FatedShop, outcome: Outcome, ends: dict[str, tuple[str, int]]) -> None:
    for name in ("timer", "whole", "step"):
        run.judge(name, variant=name, wrong_way=name == "whole", fault=f"SIGKILL {EffectWindow.AFTER}")
    standing, (_, charged) = judge(shop), drawn_engines.attempts(shop, drawn_engines.one(run, "step"))
    endings = {name: standing.endings[drawn_engines.one(run, name).id] for name in ("timer", "whole", "step")}
    (whole, _), (step, late) = ends["whole"], ends["step"]
    run.claim(
        "Camunda: a timer within the saga gives up and undoes all, the payment of which nobody knows included",
        (outcome, endings["timer"]) == (Outcome.COMPENSATED, Ending.COMPENSATED),
        topics=[CAMUNDA],
        fact=f"{outcome}; in the services: {endings['timer']}",
        variant="Camunda",
    )
    run.claim(
        "Step Functions: a state machine that is out of time stops where it is, and undoes nothing",
        (whole, endings["whole"]) == ("TIMED_OUT", Ending.INCONSISTENT),
        topics=[STEP_FUNCTIONS],
        fact=f"{whole}; {'; '.join(drawn_engines.said(standing, drawn_engines.one(run, 'whole')))}",
        variant="Step Functions, timeout of the machine",
        wrong_way=True,
    )
    run.claim(
        "Step Functions: a step that is out of time is asked for again, and done once",
        (step, endings["step"], charged) == ("SUCCEEDED", Ending.COMPLETE, 1) and late > 0,
        topics=[STEP_FUNCTIONS],
        fact=f"{step}; attempts out of time: {late}; charged: {charged}; in the services: {endings['step']}",
        variant="Step Functions",
    )


def short_lock(run: Run, shop: FatedShop) -> None:
    hasty = Policy(lock=drawn_engines.LOCK, wait=drawn_engines.LOCK / 3, threads=2, batch=1)
    for way, how in {"keyless": drawn_engines.slowly_without_a_key, "keyed": drawn_engines.slowly}.items():
        with camundas.opened(drawn_engines.site_of(run, shop, way), hasty, how=how) as engine:
            engine.start(drawn_engines.one(run, way))
            wait(engine, [drawn_engines.one(run, way).id])
        asked, charged = drawn_engines.attempts(shop, drawn_engines.one(run, way))
        run.claim(
            "Camunda: a lock that is shorter than the work hands a step out twice, and the customer pays twice"
            if way == "keyless"
            else "Camunda: the step is handed out twice all the same, and the idempotency key makes it one payment",
            asked >= 2 and charged == (asked if way == "keyless" else 1),
            topics=[CAMUNDA],
            fact=f"asked {asked} times, charged {charged} times",
            variant="idempotency key" if way == "keyed" else "no idempotency key",
            wrong_way=way == "keyless",
        )


if __name__ == "__main__":
    experiment.main()
