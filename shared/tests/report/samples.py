"""Runs as the labs make them, on a clock of their own: the same on every machine."""

import random
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.checkers import Anomaly, check
from shared.history import Action, History, Op, Outcome, Recorder
from shared.record import Claim, Environment, Finding, HistorySummary, RunRecord

MS = 1_000_000
REPOSITORY = Path(__file__).parents[3]
ENVIRONMENT = Environment(
    python="3.11.9",
    platform="Linux x86_64",
    cpus=2,
    memory_gb=7.8,
    load=0.42,
    fsync_ms=1.31,
    commit="d2d6040a91b7c33e",
    libraries={"psycopg": "3.3.1", "confluent-kafka": "2.16.0"},
    servers={"postgres": "18.1 (native)", "kafka": "4.1.1 (native)"},
)


class Clock:
    """Hands out ns that only grow."""

    def __init__(self, start: int = 7_000_000_000) -> None:
        self.now = start

    def after(self, ms: float) -> int:
        self.now += int(ms * MS)
        return self.now


def write(clock: Clock, number: int, process: str = "order-service") -> list[Op]:
    """A business transaction: invoke and ok."""
    start = clock.after(2.1)
    return [
        _op(start, process, Action.WRITE, Outcome.INVOKE, number),
        _op(start + 2 * MS, process, Action.WRITE, Outcome.OK, number),
    ]


def _op(at: int, process: str, action: Action, outcome: Outcome, number: int, offset: int = -1, group: str = "") -> Op:
    key, seq = f"order-{number % 7}", number // 7 + 1
    topic, partition = ("orders", number % 3) if offset >= 0 else ("", -1)
    return Op(at, process, action, outcome, f"e-{number:06d}", key, seq, topic, partition, offset, group=group)


def relay_killed(events: int = 402, kill_at: int = 150) -> Iterator[Op]:
    """An outbox relay, killed after publish and before mark: it publishes the batch again when it is back."""
    clock, offset = Clock(), 0
    batch: list[int] = []
    for number in range(1, events + 1):
        yield from write(clock, number)
        batch.append(number)
        if len(batch) < 3:
            continue
        killed = number >= kill_at and kill_at > 0
        for again in range(1 + killed):
            at = clock.after(3)
            for place, sent in enumerate(batch):
                offset += 1
                begun, ended = at + place * MS, at + place * MS + 9 * MS // 10
                yield _op(begun, "relay", Action.SEND, Outcome.INVOKE, sent)
                # The last acknowledgement dies with the relay; the broker has the record all the same.
                if not (killed and not again and place == len(batch) - 1):
                    yield _op(ended, "relay", Action.SEND, Outcome.OK, sent, offset)
                reader = "billing-1" if sent % 3 else "billing-2"
                received = ended + 2 * MS
                yield _op(received, reader, Action.DELIVER, Outcome.OK, sent, offset, "billing")
                if not again:
                    yield _op(received + MS, reader, Action.EFFECT, Outcome.OK, sent)
            if killed and not again:
                yield Op(clock.after(3.4), "relay", Action.FAULT, Outcome.OK, note="SIGKILL at after-publish")
                clock.after(640)
        if killed:
            kill_at = 0
        batch = []
    for number in range(1, events + 1):
        yield _op(clock.after(0.01), "judge", Action.READ, Outcome.OK, number)


def dual_write(events: int = 300, crashes: tuple[int, ...] = (90, 200)) -> Iterator[Op]:
    """Commit, then publish: a crash between loses an event. Publish, then commit: a crash leaves a phantom."""
    clock, absent = Clock(), set()
    for number in range(1, events + 1):
        start, process = clock.after(5), "order-service"
        if number == crashes[0]:
            yield from (
                _op(start, process, Action.WRITE, Outcome.INVOKE, number),
                _op(start + MS, process, Action.WRITE, Outcome.OK, number),
            )
            yield Op(clock.after(1.5), process, Action.FAULT, Outcome.OK, note="SIGKILL at after-commit")
            clock.after(410)
            continue
        if number == crashes[1]:
            absent.add(number)
            yield _op(start, process, Action.WRITE, Outcome.INVOKE, number)
            yield _op(start + MS, process, Action.SEND, Outcome.OK, number, number)
            yield Op(start + 2 * MS, process, Action.FAULT, Outcome.OK, note="SIGKILL at before-commit")
            yield _op(start + 3 * MS, "shipping", Action.DELIVER, Outcome.OK, number, number)
            clock.after(380)
            continue
        yield from (
            _op(start, process, Action.WRITE, Outcome.INVOKE, number),
            _op(start + MS, process, Action.WRITE, Outcome.OK, number),
        )
        yield _op(start + 2 * MS, process, Action.SEND, Outcome.OK, number, number)
        yield _op(start + 4 * MS, "shipping", Action.DELIVER, Outcome.OK, number, number)
        yield _op(start + 5 * MS, "shipping", Action.EFFECT, Outcome.OK, number)
    for number in range(1, events + 1):
        if number not in absent:
            yield _op(clock.after(0.01), "judge", Action.READ, Outcome.OK, number)


def paused_broker(events: int = 60) -> Iterator[Op]:
    """A broker paused for a while: sends time out with an unknown end, some surely fail, all are sent again."""
    clock = Clock()
    for number in range(1, events + 1):
        yield from write(clock, number)
        at = clock.after(3)
        if number == 25:
            yield Op(at, "kafka", Action.FAULT, Outcome.OK, note="pause", until=at + 900 * MS)
            yield _op(at + MS, "relay", Action.SEND, Outcome.INVOKE, number)
            yield _op(at + 500 * MS, "relay", Action.SEND, Outcome.UNKNOWN, number)
            yield _op(at + 510 * MS, "relay", Action.SEND, Outcome.INVOKE, number)
            yield _op(at + 800 * MS, "relay", Action.SEND, Outcome.FAIL, number)
            at = clock.after(905)
        yield _op(at, "relay", Action.SEND, Outcome.INVOKE, number)
        yield _op(at + MS, "relay", Action.SEND, Outcome.OK, number, number)
        yield _op(at + 2 * MS, "billing", Action.DELIVER, Outcome.OK, number, number)
        yield _op(at + 3 * MS, "billing", Action.EFFECT, Outcome.OK, number)


def crowd(events: int = 1_000) -> Iterator[Op]:
    """Three writers, two relays that know nothing of each other, three consumers: much at once, and out of order."""
    draw, offset = random.Random(3), 0
    for number in range(1, events + 1):
        at = 7_000 * MS + number * MS + draw.randrange(MS)
        writer, relay, reader = f"checkout-{number % 3}", f"relay-{draw.randrange(2)}", f"consumer-{number % 3}"
        yield _op(at, writer, Action.WRITE, Outcome.INVOKE, number)
        yield _op(at := at + draw.randrange(MS, 3 * MS), writer, Action.WRITE, Outcome.OK, number)
        for _ in range(1 + (draw.random() < 0.02)):
            offset += 1
            yield _op(at := at + draw.randrange(MS, 9 * MS), relay, Action.SEND, Outcome.OK, number, offset)
            yield _op(at := at + draw.randrange(MS, 6 * MS), reader, Action.DELIVER, Outcome.OK, number, offset, "g")
            yield _op(at + MS // 3, reader, Action.EFFECT, Outcome.OK, number)
    yield Op(7_500 * MS, "relay-0", Action.FAULT, Outcome.OK, note="SIGKILL at after-publish")
    yield Op(7_600 * MS, "kafka", Action.FAULT, Outcome.OK, note="pause", until=7_650 * MS)


def found(history: History) -> tuple[Finding, ...]:
    """What the checkers say, as a record keeps it: the first twenty of each kind."""
    return tuple(_finding(anomaly) for anomalies in check(history).values() for anomaly in anomalies[:20])


def _finding(anomaly: Anomaly) -> Finding:
    return Finding(
        kind=anomaly.kind,
        value=anomaly.value,
        key=anomaly.key,
        process=anomaly.process,
        at=anomaly.at,
        detail=anomaly.detail,
    )


def recorded(
    folder: Path, name: str, ops: Iterator[Op], *, wrong_way: bool = False, variant: str = ""
) -> HistorySummary:
    """Write a history into a run's folder, judge it, and summarise it."""
    path = folder / f"{name.replace(' ', '-')}.jsonl"
    with Recorder(path, "sample") as recorder:
        recorder.add(*ops)
    history = History.read(path)
    counts = {str(kind): len(anomalies) for kind, anomalies in check(history).items()}
    return HistorySummary(
        name=name,
        path=path.name,
        variant=variant,
        wrong_way=wrong_way,
        operations=len(history),
        faults=len(history.faults),
        counts=counts,
        findings=found(history),
    )


def record(lab: str = "outbox-pattern", experiment: str = "01_sample", **changes: Any) -> RunRecord:
    """A small record that holds, with whatever fields a test names changed."""
    plain: Mapping[str, Any] = {
        "title": "A sample",
        "question": "Does it hold?",
        "topics": ("I.5/outbox-pattern/at-least-once-delivery",),
        "started": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        "seconds": 41.3,
        "scale": "demo",
        "seed": 7,
        "environment": ENVIRONMENT,
        "claims": (Claim(text="nothing is lost", holds=True, fact="0 of 402 lost"),),
    }
    return RunRecord(lab=lab, experiment=experiment, **{**plain, **changes})


def folder_of(home: Path, kept: RunRecord, time: str = "2026-11-24T09-30-00") -> Path:
    return home / "runs" / kept.lab / kept.experiment / time


def root(folder: Path) -> Path:
    """A repository with the real syllabus and two decisions."""
    (folder / "docs" / "adr").mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "docs" / "syllabus.yaml", folder / "docs" / "syllabus.yaml")
    (folder / "docs" / "adr" / "0001-two-server-providers.md").write_text(ADR)
    (folder / "docs" / "adr" / "0005-outbox.md").write_text(
        "# Publish through an outbox\n\nSee [servers](0001-two-server-providers.md).\n"
    )
    return folder


ADR = """---
status: accepted
date: 2026-11-24
---
# Two providers of the same servers

## Context

Some have Docker and some do not; see [the outbox](0005-outbox.md), [the code](../../shared/servers/native.py)
and [the web](https://example.org/why). <script>alert(1)</script>

<!--[[[cog
import shared.record
cog.outl("| lost | 0 |")
]]]-->
| measure | value | experiment |
|---|---|---|
| lost | 0 | outbox-pattern/04 |
<!--[[[end]]]-->
"""
