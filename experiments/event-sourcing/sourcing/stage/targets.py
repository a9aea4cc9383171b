"""What the benchmark is to reach: bounds as data, by the figure's name."""

from shared.targets import Target

TARGETS = {
    "append_1_vs_insert": Target(">=", 0.90, "one writer appends at 90 % of a bare insert and commit"),
    "append_8_vs_insert": Target(">=", 0.85, "8 writers append at 85 % of 8 bare inserts and commits"),
    "append_32_vs_insert": Target(">=", 0.85, "32 writers append at 85 % of 32 bare inserts and commits"),
    "append_8_vs_peer": Target(">=", 4.0, "8 writers append at four times the rate of the eventsourcing library"),
    "append_32_vs_peer": Target(">=", 4.0, "32 writers append at four times the rate of the eventsourcing library"),
    "batch100_vs_peer": Target(">=", 2.5, "batches of 100 are appended at 2.5 times the library's rate"),
    "load_1000_vs_peer": Target(">=", 5.0, "an aggregate of 1,000 events loads in a fifth of the library's time"),
    "load_10000_vs_peer": Target(">=", 5.0, "an aggregate of 10,000 events loads in a fifth of the library's time"),
    "read_all_vs_peer": Target(">=", 1.5, "all events are read and decoded at 1.5 times the library's rate"),
    "projection_vs_per_event": Target(
        ">=", 20.0, "a projection in batches is 20 times as fast as one commit per event"
    ),
    "missed": Target("<=", 0.0, "no reader missed an event, had one twice, or had one out of order"),
}
