"""What the benchmark is to reach: bounds as data, so that a shortfall is seen as one."""

from shared.run import Run

# Figure -> (at least or at most, bound, what it says).
TARGETS = {
    "drain_vs_debezium": (">=", 3.5, "the best Python relay drains at 3.5 times Debezium's rate"),
    "drain_vs_producer": (">=", 0.55, "the best Python relay drains at 55 % of a bare producer's rate"),
    "wal_drain_vs_debezium": (">=", 2.0, "the log relay drains at twice Debezium's rate"),
    "p99_vs_debezium_100": ("<=", 0.25, "at 100 a second its p99 is a quarter of Debezium's"),
    "p99_vs_debezium_1000": ("<=", 0.5, "at 1,000 a second its p99 is half of Debezium's"),
    "txn_p50_overhead": ("<=", 0.15, "the outbox adds at most 15 % to a transaction's median"),
    "rss_growth_mb": ("<=", 20.0, "a relay's memory grows by at most 20 MB in a drain of a million"),
}


def claim_targets(run: Run) -> None:
    """One claim per target, on the figure of its name."""
    values = {figure.name: figure.value for figure in run.figures}
    for name, (sign, bound, text) in TARGETS.items():
        value = values[name]
        run.claim(
            text, value >= bound if sign == ">=" else value <= bound, fact=f"{name} {value:.3g}, {sign} {bound:g}"
        )
