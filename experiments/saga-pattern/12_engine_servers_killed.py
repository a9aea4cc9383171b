"""kill -9 of the engine's server while sagas run: what does it still know afterwards?

Camunda as this house sets it up (docker/camunda/application.yaml) beside one on an H2 as it comes, whose settings are
the lines that differ (`forgetful`); and moto, which stands in for Step Functions here, and keeps nothing.
"""

from dataclasses import replace
from functools import partial

from saga.engines.camunda.client import Camunda
from saga.services.invariant import Ending, judge
from saga.stage import drawn as drawn_engines
from saga.stage.engines import camunda as camundas
from saga.stage.engines import stepfunctions as machines
from saga.stage.engines import wait
from saga.stage.fates import FatedShop, open_shop

from shared.experiment import Experiment, Run, Scale
from shared.servers.handle import Handle
from shared.threads import begin

CAMUNDA = "I.4/orchestration-tools/camunda"
STEP_FUNCTIONS = "I.4/orchestration-tools/aws-step-functions"
experiment = Experiment(
    title="Camunda and moto: kill -9 of the server",
    servers=("postgres", "camunda", "moto"),
    topics=(CAMUNDA, STEP_FUNCTIONS),
)


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=4, demo=25, full=50)
    run.parameters.update({"orders per engine and kill": count})
    shop = open_shop(run, "cases", drawn_engines.cases(run, count))
    moto = begin(partial(run.own, "moto"))  # it has the time that Camunda needs to come back
    if run.possible("camunda", "kill -9 Camunda"):
        with run.step("kill -9 Camunda while sagas run"):
            killed_camunda(run, shop, count)
    with run.step("kill -9 moto while sagas run"):
        killed_moto(run, shop, moto.result())
    if run.scale is not Scale.SMOKE:  # two more starts of a Camunda
        with run.step("kill -9 a Camunda on an H2 with H2's own settings"):
            forgetful(run)


def killed_camunda(run: Run, shop: FatedShop, count: int) -> None:
    wanted, server = drawn_engines.durable(run, count), run.control("camunda")
    with camundas.opened(drawn_engines.site_of(run, shop, "durable"), drawn_engines.PATIENT) as engine:
        for order in wanted:
            engine.start(order)
        drawn_engines.await_reserved(shop, wanted)
        running = count - len(engine.ended([order.id for order in wanted]))
        run.figure("back after kill -9", drawn_engines.killed(run, "camunda-killed", server), "s", variant="Camunda")
        drawn_engines.repair(shop, wanted)
        ended = wait(engine, [order.id for order in wanted])
    run.judge("camunda-killed", variant="Camunda", fault="SIGKILL")
    endings = judge(shop).endings
    complete = [order for order in wanted if endings.get(order.id) is Ending.COMPLETE]
    run.claim(
        "Camunda: what it has acknowledged survives kill -9, and goes on where it was",
        len(ended) == len(complete) == count and running > 0,
        topics=[CAMUNDA],
        fact=f"{running} sagas were running; {len(complete)} of {count} complete",
        variant="Camunda",
    )


def forgetful(run: Run) -> None:
    """What docker/camunda/application.yaml is not content with."""
    wanted = drawn_engines.durable(run, 20)
    server = run.own("camunda", spring_datasource_url="jdbc:h2:file:${lab.data}/camunda;DB_CLOSE_ON_EXIT=FALSE")
    with Camunda(server.endpoint.url, run.name) as camunda:
        camunda.deploy()
        for order in wanted:
            camunda.start(order, timeout=600)
        drawn_engines.killed(run, "camunda-forgets", server)
        left = len(camunda.instances(order.id for order in wanted))
    run.judge("camunda-forgets", variant="Camunda on an H2 as it comes", wrong_way=True, fault="SIGKILL")
    run.claim(
        "Camunda on an H2 as it comes: sagas that it has acknowledged are gone after kill -9",
        left < len(wanted),
        topics=[CAMUNDA],
        fact=f"{left} of {len(wanted)} left; H2 writes a commit to its file up to half a second later",
        variant="Camunda on an H2 as it comes",
        wrong_way=True,
    )


def killed_moto(run: Run, shop: FatedShop, server: Handle) -> None:
    wanted = drawn_engines.forgotten(run)
    with machines.opened(
        replace(drawn_engines.site_of(run, shop, "forgotten"), endpoints={"moto": server.endpoint})
    ) as engine:
        for order in wanted:
            engine.start(order)
        drawn_engines.await_reserved(shop, wanted)
        engine.workers[0].kill()
        drawn_engines.killed(run, "moto-killed", server)
        left = engine.sagas.states.list_state_machines()["stateMachines"]
    run.judge("moto-killed", variant="moto", fault="SIGKILL")
    endings = judge(shop).endings
    half_done = [order for order in wanted if endings[order.id] is Ending.INCONSISTENT]
    run.claim(
        "moto keeps nothing: after kill -9 the sagas are gone, and their orders stay half done (AWS keeps executions)",
        left == [] and half_done == wanted,
        topics=[STEP_FUNCTIONS],
        fact=f"{len(left)} state machines left, {len(half_done)} of {len(wanted)} orders half done",
        variant="moto",
        wrong_way=True,
    )


if __name__ == "__main__":
    experiment.main()
