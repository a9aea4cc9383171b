"""What the benchmark is to reach: bounds as data, by the figure's name."""

from shared.targets import Target

TARGETS = {
    "drain_vs_debezium": Target(">=", 3.5, "the best Python relay drains at 3.5 times Debezium's rate"),
    "relay_cpu_vs_debezium": Target(
        "<=", 0.3, "an event costs 30 % of Debezium's CPU time at most, over all processes, with the cursor"
    ),
    "relay_cpu_vs_producer": Target(
        "<=", 1.0, "and no more than a bare producer that has all events in memory and sends them one by one"
    ),
    "wal_drain_vs_debezium": Target(">=", 2.0, "the log relay drains at twice Debezium's rate"),
    "p99_vs_debezium_100": Target("<=", 0.25, "at 100 a second its p99 is a quarter of Debezium's"),
    "p99_vs_debezium_1000": Target("<=", 0.5, "at 1,000 a second its p99 is half of Debezium's"),
    "lag_under_long_transaction_ms": Target(
        "<=", 20.0, "a transaction of others that stays open makes the cursor at most 20 ms later"
    ),
    "idle_cpu_under_long_transaction": Target(
        "<=", 1.25, "an idle cursor costs no more than a quarter more beside it: nothing is scanned again"
    ),
    "lost": Target("==", 0, "killed in 50 schedules of services at the same orders, the cursor loses nothing"),
    "reordered": Target("==", 0, "nor has it an order's events out of order"),
    "txn_p50_overhead": Target("<=", 0.15, "the outbox adds at most 15 % to a transaction's median"),
    "rss_growth_mb": Target("<=", 20.0, "a relay's memory grows by at most 20 MB in a drain of a million"),
}
