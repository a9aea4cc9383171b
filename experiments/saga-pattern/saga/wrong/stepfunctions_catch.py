"""The catchers of most samples for Step Functions: the step that failed counts as not done."""

from saga.engines.stepfunctions.client import Definition
from saga.order import STEPS, UNDO


def as_samples_catch(asl: Definition) -> Definition:
    """The same, with the catchers of most samples: whatever happened, undo the steps *before* the one that failed."""
    for step, before in zip(STEPS, (None, *STEPS), strict=False):
        for catcher in asl["States"][step]["Catch"]:
            catcher["Next"] = UNDO[before] if before else "compensated"
    return asl
