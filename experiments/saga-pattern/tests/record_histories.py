"""Make the histories of the replay tests: `python record_histories.py histories`, in this folder.

A stored history stands for the sagas that are under way wherever this code is deployed. When a test says that the code
does not agree with one any more, the code needs a patch: to record the history anew would only hide it.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from saga.engines.temporal.client import Sagas
from saga.engines.temporal.histories import happened
from saga.engines.temporal.messages import Limits
from saga.engines.temporal.workflow import OrderSaga
from saga.order import Action
from saga.services.shop import Shop
from saga.stage.temporal import MANY, Gate, HeldActivities, Playground, await_held, doing, intervene, needy, order
from saga.windows import EffectWindow
from saga.wrong.temporal_versions import Before

from shared.output import Output
from shared.run import Run, Scale
from shared.servers.stack import Stack
from shared.settings import Settings
from shared.wait import until

NAMES = "before", "completed", "aborted", "cancelled", "mended", "late"
ORDERS = BEFORE, COMPLETED, ABORTED, CANCELLED, MENDED, LATE = [order(name, n) for n, name in enumerate(NAMES)]
FATES = needy([ABORTED, CANCELLED], [MENDED])


def main(folder: Path) -> None:
    """Write a file for each history."""
    stack = Stack(Settings.load())
    with ExitStack() as things:
        endpoints = things.enter_context(stack.borrowed(["postgres", "temporal"]))
        logs = Path(things.enter_context(TemporaryDirectory()))
        run = Run(logs, stack, endpoints, Scale.SMOKE, 0, Output(silent=True))
        things.enter_context(run.stack_of_things)
        stage = Playground(run, endpoints["temporal"], "record")
        folder.mkdir(parents=True, exist_ok=True)
        for name, history in histories(stage, stage.shop("record", FATES)):
            (folder / f"{name}.json").write_text(json.dumps(untraced(json.loads(history)), indent=1) + "\n")


def histories(stage: Playground, shop: Shop) -> Iterator[tuple[str, str]]:
    """Each by its name."""
    with stage.working([job := stage.job(shop, "before", workflow=Before)]):
        stage.start([BEFORE], job.queue)
        stage.ended([BEFORE])
    with stage.working([job := stage.job(shop, "now")]):
        stage.start([COMPLETED], job.queue)
        stage.start([CANCELLED], job.queue, MANY)
        until("it to ship", partial(doing, stage, CANCELLED, Action.SHIP))
        stage.client.call(Sagas.cancel, CANCELLED.id)
        stage.ended([COMPLETED, CANCELLED])
    intervene(stage, shop, [ABORTED], [MENDED])
    come_too_late(stage, shop)
    for one in ORDERS:
        yield one.id, stage.history(one)


def untraced(part: Any) -> Any:
    """Without stack traces: they name files of one machine, and no replay looks at them."""
    if isinstance(part, dict):
        return {key: untraced(value) for key, value in part.items() if key != "stackTrace"}
    return [untraced(value) for value in part] if isinstance(part, list) else part


def come_too_late(stage: Playground, shop: Shop) -> None:
    """Its deadline comes, and then an answer, while no worker is there: the workflow gets both at the same time."""
    gate = Gate(stage.run.folder / "gate", EffectWindow.AFTER, {LATE.id: Action.CHARGE})
    held = stage.job(shop, "late", workflow=None, activities=partial(HeldActivities, gates=(gate,)))
    alone = replace(held, workflow=OrderSaga, activities=None)
    with stage.working([held]):
        with stage.working([alone]):
            stage.start([LATE], held.queue, Limits(deadline=3))
            await_held(gate)
        until("its deadline", lambda: "TIMER_FIRED" in happened(stage.history(LATE)))
        gate.open()
        until("an answer after it", lambda: happened(stage.history(LATE))[-1] == "ACTIVITY_TASK_COMPLETED")
        with stage.working([alone]):
            stage.ended([LATE])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
