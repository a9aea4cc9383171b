"""Three read models follow one stream of events, and their projectors are killed: does each hold every event once?

The same three are kept by three projectors, which differ in where they note how far they are: before the read model,
after it, or in its transaction: `_take` of CheckpointFirst, ModelFirst and Projector. Every read model is compared, row
by row, with a fold of all events that knows nothing of projections.
"""

from sourcing.projection import Projector
from sourcing.stage import kills
from sourcing.stage.kills import Damage, Log
from sourcing.windows import ProjectionWindow
from sourcing.wrong.projectors import CheckpointFirst, ModelFirst

from shared.experiment import Experiment, Run
from shared.faults import Kill

CONSISTENCY = "I.2/projections/projection-consistency"
READ_MODELS, SEVERAL = "I.2/projections/read-models-from-events", "I.2/projections/multiple-projections"
experiment = Experiment(
    title="Projections: killed in every window",
    servers=("postgres",),
    topics=(CONSISTENCY, READ_MODELS, SEVERAL),
)


NAMES: dict[type[Projector], str] = {
    CheckpointFirst: "checkpoint first",
    ModelFirst: "model first",
    Projector: "one transaction",
}


@experiment.run
def main(run: Run) -> None:
    orders = run.pick(smoke=40, demo=200, full=600)
    with run.step(f"{orders} orders"):
        log = kills.write_log(run, orders)
    run.parameters.update({"orders": orders, "batch": log.batch})
    found = {}
    for way in (CheckpointFirst, ModelFirst, Projector):
        with run.step(f"{NAMES[way]}: three projections, kill -9 in every window"):
            for window in ProjectionWindow:
                found[way, window] = kill_once(run, log, way, window)
    claim_dropped(run, found[CheckpointFirst, ProjectionWindow.BETWEEN], log.batch)
    claim_doubled(run, found[ModelFirst, ProjectionWindow.BETWEEN], log.batch)
    claim_right(run, [damage for (way, _), damage in found.items() if way is Projector])


def kill_once(run: Run, log: Log, way: type[Projector], window: ProjectionWindow) -> Damage:
    """Read models of their own on the common events; each projector dies at its second batch, and is started again."""
    about = run.about(NAMES[way], wrong_way=way is not Projector)
    with kills.read_models(run, log, f"{NAMES[way]}-{window}".replace(" ", "-")) as models:
        models.project(way, Kill(window, nth=2))
        models.project(way)
        models.note_writes()
        wrong = models.wrong()
    damage = kills.damage(about.judge(models.name, fault=f"SIGKILL {window}"), wrong)
    dropped, twice, rows = sum(damage.dropped.values()), damage.doubled, sum(wrong.values())
    for what, value in {"events dropped": dropped, "events counted twice": twice, "rows wrong": rows}.items():
        about.figure(what, value, what.split()[0], x=window, x_label="killed")
    return damage


def claim_dropped(run: Run, damage: Damage, batch: int) -> None:
    run.about(NAMES[CheckpointFirst], wrong_way=True, topics=[CONSISTENCY]).claim(
        "checkpoint first, model after: killed in between, each projection drops its batch for good, without an error",
        set(damage.dropped.values()) == {batch} and all(damage.wrong.values()) and damage.doubled == 0,
        fact=f"{sum(damage.dropped.values())} events dropped, {damage}",
    )


def claim_doubled(run: Run, damage: Damage, batch: int) -> None:
    run.about(NAMES[ModelFirst], wrong_way=True, topics=[CONSISTENCY]).claim(
        "model first, checkpoint after: killed in between, each projection counts its batch twice",
        damage.doubled == batch * len(damage.dropped)
        and all(damage.wrong.values())
        and not any(damage.dropped.values()),
        fact=f"{damage.doubled} events counted twice, {damage}",
    )


def claim_right(run: Run, found: list[Damage]) -> None:
    right = run.about(NAMES[Projector], topics=[CONSISTENCY])
    losses = sum(sum(damage.dropped.values()) + damage.doubled for damage in found)
    kills = sum(len(damage.history.faults) for damage in found)
    right.claim(
        "checkpoint in the transaction of the model: killed in any window, every event counts once",
        losses == 0 and kills == len(ProjectionWindow) * len(found[0].dropped),
        fact=f"{losses} dropped or doubled at {kills} kills",
    )
    right.claim(
        "three projections read one stream, each at its own pace: all three are, row by row, the fold of all events",
        not any(sum(damage.wrong.values()) for damage in found),
        topics=[READ_MODELS, SEVERAL],
        fact=f"{sum(sum(damage.wrong.values()) for damage in found)} rows wrong after {kills} kills",
    )


if __name__ == "__main__":
    experiment.main()
