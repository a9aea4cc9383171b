"""kill -9 of the engine's server while sagas run: what does it still know afterwards?

Camunda as this house sets it up (docker/camunda/application.yaml) beside one on an H2 as it comes, whose settings are
the lines that differ (AS_IT_COMES); and moto, which stands in for Step Functions here, and keeps nothing.
"""

from functools import partial

from saga.stage import drawings

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
# What docker/camunda/application.yaml is not content with.
AS_IT_COMES = {"spring_datasource_url": "jdbc:h2:file:${lab.data}/camunda;DB_CLOSE_ON_EXIT=FALSE"}


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=4, demo=25, full=50)
    run.parameters.update({"orders per engine and kill": count})
    cases = drawings.open_cases(run, count)
    moto = begin(partial(run.own, "moto"))  # it has the time that Camunda needs to come back
    if run.possible("camunda", "kill -9 Camunda"):
        with run.step("kill -9 Camunda while sagas run"):
            killed_camunda(run, cases, count)
    with run.step("kill -9 moto while sagas run"):
        killed_moto(run, cases, moto.result())
    if run.scale is not Scale.SMOKE:  # two more starts of a Camunda
        with run.step("kill -9 a Camunda on an H2 with H2's own settings"):
            forgetful(run)


def killed_camunda(run: Run, cases: drawings.Cases, count: int) -> None:
    camunda, back = run.about("Camunda", topics=[CAMUNDA]), drawings.kill_camunda(run, cases, count)
    camunda.figure("back after kill -9", back.away, "s")
    camunda.judge("camunda-killed", fault="SIGKILL")
    camunda.claim(
        "Camunda: what it has acknowledged survives kill -9, and goes on where it was",
        back.ended == back.complete == count and back.running > 0,
        fact=f"{back.running} sagas were running; {back.complete} of {count} complete",
    )


def forgetful(run: Run) -> None:
    camunda = run.about("Camunda on an H2 as it comes", wrong_way=True, topics=[CAMUNDA])
    left = drawings.kill_own_camunda(run, 20, **AS_IT_COMES)
    camunda.judge("camunda-forgets", fault="SIGKILL")
    camunda.claim(
        "Camunda on an H2 as it comes: sagas that it has acknowledged are gone after kill -9",
        left < 20,
        fact=f"{left} of 20 left; H2 writes a commit to its file up to half a second later",
    )


def killed_moto(run: Run, cases: drawings.Cases, server: Handle) -> None:
    left, wanted, half_done = drawings.kill_moto(run, cases, server)
    run.judge("moto-killed", variant="moto", fault="SIGKILL")
    run.about("moto", wrong_way=True, topics=[STEP_FUNCTIONS]).claim(
        "moto keeps nothing: after kill -9 the sagas are gone, and their orders stay half done (AWS keeps executions)",
        left == 0 and half_done == wanted,
        fact=f"{left} state machines left, {len(half_done)} of {len(wanted)} orders half done",
    )


if __name__ == "__main__":
    experiment.main()
