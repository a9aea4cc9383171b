"""What the benchmark is to reach: bounds as data, so that a shortfall is seen as one."""

import operator

from shared.run import Run

COMPARE = {">=": operator.ge, "<": operator.lt, "==": operator.eq}
# Figure -> (comparison, bound, what it says).
TARGETS = {
    "orchestrator_vs_dbos": (">=", 1.0, "our orchestrator ends at least as many sagas a second as DBOS"),
    "orchestrator_vs_temporal": (">=", 3.0, "our orchestrator ends three times the sagas of Temporal's dev server"),
    "lone_p99_ms": ("<", 50.0, "99 of 100 sagas that are alone end within 50 ms"),
    "recovery_s": ("<", 2.0, "2 s after kill -9 of a worker of ours, all that was begun has ended"),
    "temporal_recovery_s": ("<", 6.0, "6 s after kill -9 of a worker of Temporal, all that was begun has ended"),
    "violations": ("==", 0.0, "no order is left half done by any engine under any fault schedule"),
    "stuck": ("==", 0.0, "no saga is stuck: each ends, or waits for an operator where it fails for good"),
}


def claim_targets(run: Run) -> None:
    """One claim per target, on the figure of its name."""
    values = {figure.name: figure.value for figure in run.figures}
    for name, (sign, bound, text) in TARGETS.items():
        value = values[name]
        run.claim(text, COMPARE[sign](value, bound), fact=f"{name} {value:.3g}, {sign} {bound:g}")


def taught() -> str:
    """The targets as lines of help: name, bound, and what it says."""
    return "\n".join(f"{name} {sign} {bound:g}: {text}" for name, (sign, bound, text) in TARGETS.items())
