"""What the benchmark is to reach: bounds as data, by the figure's name."""

from shared.targets import Target

TARGETS = {
    "orchestrator_vs_dbos": Target(">=", 1.0, "our orchestrator ends at least as many sagas a second as DBOS"),
    "orchestrator_vs_temporal": Target(
        ">=", 3.0, "our orchestrator ends three times the sagas that Temporal's dev server ends"
    ),
    "singly_vs_dbos": Target(">=", 1.0, "so it does when its services commit each step alone, as those of DBOS do"),
    "lone_p99_ms": Target("<", 50.0, "99 of 100 sagas that are alone end within 50 ms"),
    "recovery_s": Target("<", 2.0, "2 s after kill -9 of a worker of ours, all that was begun has ended"),
    "temporal_recovery_s": Target("<", 6.0, "6 s after kill -9 of a worker of Temporal, all that was begun has ended"),
    "engines": Target(">=", 6, "ours, the choreography and four others are under the same fault schedules"),
    "violations": Target("==", 0.0, "no order is left half done by any engine under any fault schedule"),
    "stuck": Target("==", 0.0, "no saga is stuck: each ends, or waits for an operator where it fails for good"),
}
