"""What experiment 02 sets up and judges: a choreography on topics and in schemas of its own."""

from saga.choreography.flow import Flow
from saga.choreography.machine import MACHINES, Machines
from saga.order import World
from saga.services.invariant import Ending, Standing
from saga.stage.choreography.playing import Kind
from saga.stage.choreography.stage import Stage, create, drop, settle
from saga.stage.fates import KIND, Fates
from shared.history import History
from shared.run import Run

WORLD = World()


def open_stage(run: Run, name: str, machines: Machines = MACHINES, fates: Fates = KIND) -> Stage:
    """A stage whose schemas are gone at the end of the run, unless they are kept for a look."""
    history = run.history_file(name)
    database, broker = run.endpoints["postgres"], run.endpoints["kafka"]
    stage = create(database, broker, f"{run.name}_{name}".replace("-", "_"), history, machines, fates, WORLD)
    if not run.keep:
        run.cleanup(lambda: drop(database, stage))
    return stage


def judged(run: Run, stage: Stage, variant: str = Kind.RIGHT, fault: str | None = None) -> History:
    """The judgement of what was played on a stage that is at rest."""
    settle(stage)
    return run.judge(stage.history.stem, variant=variant, wrong_way=variant != Kind.RIGHT, fault=fault)


def endings(standing: Standing, ending: Ending) -> set[str]:
    """The orders that ended so."""
    return {order for order, found in standing.endings.items() if found is ending}


def note_flow(run: Run, flow: Flow, variant: str) -> None:
    """Figures of how large a flow is."""
    sizes = {"services": len(flow.services), "event types": len(flow.events), "messages": len(flow.messages)}
    for what, count in {**sizes, "reactions": len(flow.arrows)}.items():
        run.figure("size of the flow", count, "", variant=variant, x=what, x_label="number of")
    run.figure("pairs of services that hear each other", len(flow.mutual()), "pairs", variant=variant)
