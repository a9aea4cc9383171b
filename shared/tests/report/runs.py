"""A home full of runs, as `make demo` leaves it."""

import random
from pathlib import Path

from shared.record import Claim, Figure, NotPossible
from shared.tests.report.samples import crowd, dual_write, folder_of, paused_broker, record, recorded, relay_killed

AT_LEAST_ONCE = "I.5/outbox-pattern/at-least-once-delivery"
PUBLISHER_CRASH = "I.5/failure-scenarios/publisher-crash"
RELAY_CLAIMS = (
    Claim(
        text="Nothing is lost when the relay is killed between publish and mark",
        holds=True,
        topics=(AT_LEAST_ONCE, PUBLISHER_CRASH),
        variant="polling outbox",
        fact="0 of 402 lost",
    ),
    Claim(
        text="A kill doubles at most one batch",
        holds=True,
        topics=(AT_LEAST_ONCE,),
        variant="polling outbox",
        fact="3 delivered twice",
    ),
    Claim(
        text="Every duplicate is absorbed: no effect happens twice",
        holds=False,
        variant="polling outbox",
        fact="2 effects twice",
    ),
)
RELAY_FIGURES = (
    Figure(
        name="Duplicates per kill",
        value=3,
        unit="events",
        variant="polling outbox, batch 3",
        n=12,
        low=1,
        high=3,
    ),
    Figure(
        name="Duplicates per kill",
        value=1,
        unit="events",
        variant="polling outbox, batch 1",
        n=12,
        low=1,
        high=1,
    ),
    Figure(name="Duplicates per kill", value=0, unit="events", variant="dual write", wrong_way=True, n=12),
    Figure(
        name="Time until the backlog is gone",
        value=640,
        unit="ms",
        variant="polling outbox",
        n=12,
        p50=640,
        p95=810,
        p99=902,
    ),
    Figure(
        name="Time until the backlog is gone",
        value=412.5,
        unit="ms",
        variant="change data capture",
        n=12,
        p50=412.5,
        p95=540,
        p99=588,
    ),
)
DUAL_WRITE_CLAIMS = (
    Claim(
        text="A dual write loses the event of a transaction that committed",
        holds=True,
        wrong_way=True,
        topics=(PUBLISHER_CRASH,),
        variant="dual write",
        fact="1 of 300 lost",
    ),
    Claim(
        text="A dual write announces an event of a transaction that never was",
        holds=True,
        wrong_way=True,
        variant="dual write",
        fact="1 phantom",
    ),
    Claim(
        text="The outbox loses none under the same load",
        holds=True,
        variant="polling outbox",
        topics=(AT_LEAST_ONCE,),
        fact="0 of 402 lost",
    ),
)
DUAL_WRITE_FIGURES = tuple(
    Figure(
        name="Wrong events in a thousand",
        value=value,
        unit="",
        variant=variant,
        wrong_way=variant == "dual write",
        x=x,
    )
    for x, variant, value in (
        ("lost", "dual write", 3.3),
        ("lost", "polling outbox", 0),
        ("phantom", "dual write", 3.3),
        ("phantom", "polling outbox", 0),
    )
)


def fill(home: Path) -> Path:
    """A home with runs of several labs: right and wrong ways, a failure, an error, a step not possible."""
    _relay(home)
    _dual_write(home)
    _paused(home)
    _latency(home)
    _crowd(home)
    broken = record(
        "cqrs",
        "02_read_your_writes",
        title="Read your own writes",
        error="postgres: did not answer within 30 s. Its log: .lab/log/postgres.log",
        claims=(),
    )
    broken.write(folder_of(home, broken))
    refused = record(
        "event-ordering",
        "04_kill_the_leader",
        title="Kill the leader of a partition",
        claims=(),
        not_possible=(NotPossible(step="kill the leader", reason="the cluster is a team's own, and is never killed"),),
    )
    refused.write(folder_of(home, refused))
    return home


def _relay(home: Path) -> None:
    plain = record(
        experiment="04_kill_the_relay",
        title="Kill the relay in every crash window",
        question="Killing the relay between publish and mark: what is lost, what is doubled?",
        parameters={"events": 402, "batch": 3, "windows": "after-publish"},
    )
    folder = folder_of(home, plain)
    history = recorded(folder, "relay killed after publish", relay_killed(), variant="polling outbox")
    changes = {"histories": (history,), "claims": RELAY_CLAIMS, "figures": RELAY_FIGURES}
    plain.model_copy(update=changes).write(folder)


def _dual_write(home: Path) -> None:
    plain = record(
        experiment="01_dual_write",
        title="Commit and publish, without an outbox",
        question="A service commits, then publishes. What becomes of the event when it is killed in between?",
    )
    folder = folder_of(home, plain)
    wrong = recorded(folder, "dual write, killed twice", dual_write(), wrong_way=True, variant="dual write")
    right = recorded(folder, "outbox, no fault", relay_killed(kill_at=0), variant="polling outbox")
    changes = {"histories": (wrong, right), "claims": DUAL_WRITE_CLAIMS, "figures": DUAL_WRITE_FIGURES}
    plain.model_copy(update=changes).write(folder)


def _paused(home: Path) -> None:
    plain = record(
        "event-ordering",
        "01_paused_broker",
        title="Pause the broker",
        question="What does a sender know of an event whose acknowledgement never came?",
    )
    folder = folder_of(home, plain)
    plain.model_copy(
        update={"histories": (recorded(folder, "broker paused", paused_broker(), variant="idempotent producer"),)}
    ).write(folder)


def _crowd(home: Path) -> None:
    plain = record(
        "event-ordering",
        "02_two_relays",
        title="Two relays that know nothing of each other",
        question="What becomes of the order within an aggregate?",
        claims=(
            Claim(text="Order within an aggregate is lost", holds=True, wrong_way=True, variant="two relays"),
            Claim(text="A relay never doubles an event", holds=False, wrong_way=True, variant="two relays"),
        ),
    )
    folder = folder_of(home, plain)
    history = recorded(folder, "two relays", crowd(), wrong_way=True, variant="two relays")
    plain.model_copy(update={"histories": (history,)}).write(folder)


def _latency(home: Path) -> None:
    draw = random.Random(7)
    figures = [
        Figure(
            name="Latency from commit to delivery",
            value=base * (1 + batch / 90) * draw.uniform(0.95, 1.05),
            unit="ms",
            variant=variant,
            wrong_way=wrong,
            x=float(batch),
            x_label="batch size",
            n=5000,
            p50=base * (1 + batch / 90) * 0.9,
            p99=base * (1 + batch / 90) * 1.8,
            parameters={"rate": 500},
        )
        for variant, base, wrong in (
            ("polling every 100 ms", 52, False),
            ("LISTEN/NOTIFY", 4.1, False),
            ("change data capture", 9.5, False),
            ("poll without pause", 1.1, True),
        )
        for batch in (1, 10, 100, 1000)
    ]
    kept = record(
        experiment="06_latency",
        title="How late is an event?",
        question="From commit to delivery: what does each way of relaying cost?",
        figures=tuple(figures),
    )
    kept.write(folder_of(home, kept))
