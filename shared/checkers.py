"""What can be wrong with a history: pure functions History -> list[Anomaly], empty when nothing is.

After Jepsen's Kafka workload (jepsen.tests.kafka: lost write, duplicate, poll skip, nonmonotonic poll, G1a), with
duplicate *delivery* and duplicate *effect* counted apart, since at-least-once allows the first and never excuses the
second. Each is one or two passes over the operations: a million are judged in seconds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from shared.history import Action, History, Op, Outcome


class Kind(StrEnum):
    """The kinds of anomaly."""

    LOST = "lost"
    DUPLICATE_DELIVERY = "duplicate delivery"
    DUPLICATE_EFFECT = "duplicate effect"
    REORDERED = "reordered"
    SKIPPED = "skipped"
    BACKWARDS = "backwards"
    ABORTED_READ = "aborted read"
    PHANTOM = "phantom"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that is wrong: what, with which event, seen by whom and when (ns, as in the history)."""

    kind: Kind
    value: str
    key: str
    process: str
    at: int
    detail: str


def lost(history: History) -> list[Anomaly]:
    """Committed events that no consumer received. Only meaningful after consumers were given time to catch up."""
    received = {op.value for op in history.delivered}
    missing = (history.written[value] for value in history.committed - received)
    return _in_time(_anomaly(Kind.LOST, op, "committed, never delivered") for op in missing)


def duplicate_delivery(history: History) -> list[Anomaly]:
    """Second and later deliveries of an event to the same reader."""
    return _repeated(Kind.DUPLICATE_DELIVERY, history.delivered, lambda op: (op.reader, op.value), "delivered before")


def duplicate_effect(history: History) -> list[Anomaly]:
    """Second and later effects of an event in one consumer group, whichever process had them."""
    effects = history.of(Action.EFFECT, Outcome.OK)
    return _repeated(Kind.DUPLICATE_EFFECT, effects, lambda op: (op.group, op.value), "took effect before")


def reordered(history: History) -> list[Anomaly]:
    """First deliveries in which an aggregate's event comes after a later event of the same aggregate."""
    highest: dict[tuple[str, str], int] = {}
    found = []
    for op in _first_deliveries(history):
        before = highest.get((op.reader, op.key), 0)
        if op.seq < before:
            found.append(_anomaly(Kind.REORDERED, op, f"number {op.seq} of {op.key} after number {before}"))
        highest[op.reader, op.key] = max(before, op.seq)
    return found


def skipped(history: History) -> list[Anomaly]:
    """Polls that jump over an offset at which a record is known to lie (sent there, or delivered to anyone).

    What another member of the process's group received is not skipped: partitions wander between members.
    """
    known, received = _known_offsets(history), _received_by_group(history)
    last: dict[tuple[str, str, int], int] = {}
    found = []
    for op in history.of(Action.DELIVER, Outcome.OK, Outcome.FAIL):  # a record that was refused was not skipped
        if op.offset < 0:
            continue
        place = (op.process, op.topic, op.partition)
        before, last[place] = last.get(place, op.offset), op.offset
        gap = ((op.topic, op.partition, offset) for offset in range(before + 1, op.offset))
        over = sum(at in known and not received.get((op.group, *at), set()) - {op.process} for at in gap)
        if over:
            found.append(_anomaly(Kind.SKIPPED, op, f"from offset {before} to {op.offset}, over {over} records"))
    return found


def backwards(history: History) -> list[Anomaly]:
    """Polls at or below the offset that the same process had already reached in the partition.

    A process that is started again under its name is the same: the rewind of at-least-once shows here.
    """
    last: dict[tuple[str, str, int], int] = {}
    found = []
    for op in history.delivered:
        if op.offset < 0:
            continue
        place = (op.process, op.topic, op.partition)
        before, last[place] = last.get(place, -1), op.offset
        if op.offset <= before:
            found.append(_anomaly(Kind.BACKWARDS, op, f"from offset {before} back to {op.offset}"))
    return found


def aborted_read(history: History) -> list[Anomaly]:
    """Deliveries of an event whose write had certainly failed (Adya's G1a)."""
    failed = history.aborted
    return [_anomaly(Kind.ABORTED_READ, op, "its write failed") for op in history.delivered if op.value in failed]


def phantom(history: History) -> list[Anomaly]:
    """Deliveries of an event that nothing stands behind: never written, or in doubt and not found by the final read."""
    # Without a final read an unknown write may have happened: only a failed one is then certain, and that is G1a.
    backed = history.committed | history.aborted if history.settled else history.written.keys()
    found = []
    for op in history.delivered:
        if op.value not in history.written:
            found.append(_anomaly(Kind.PHANTOM, op, "nobody wrote it"))
        elif op.value not in backed:
            found.append(_anomaly(Kind.PHANTOM, op, "delivered, but the final read did not find its row"))
    return found


CHECKERS: dict[Kind, Callable[[History], list[Anomaly]]] = {
    Kind.LOST: lost,
    Kind.DUPLICATE_DELIVERY: duplicate_delivery,
    Kind.DUPLICATE_EFFECT: duplicate_effect,
    Kind.REORDERED: reordered,
    Kind.SKIPPED: skipped,
    Kind.BACKWARDS: backwards,
    Kind.ABORTED_READ: aborted_read,
    Kind.PHANTOM: phantom,
}


def check(history: History) -> dict[Kind, list[Anomaly]]:
    """Every checker's findings, kinds without any included."""
    return {kind: checker(history) for kind, checker in CHECKERS.items()}


def _repeated(kind: Kind, ops: Iterable[Op], same: Callable[[Op], object], detail: str) -> list[Anomaly]:
    seen: set[object] = set()
    found = []
    for op in ops:
        mark = same(op)
        if mark in seen:
            found.append(_anomaly(kind, op, detail))
        seen.add(mark)
    return found


def _first_deliveries(history: History) -> Iterable[Op]:
    seen: set[tuple[str, str]] = set()
    for op in history.delivered:
        if op.seq and (op.reader, op.value) not in seen:
            seen.add((op.reader, op.value))
            yield op


def _known_offsets(history: History) -> set[tuple[str, int, int]]:
    """Where a record lies for every reader: not one that a transaction took back, or may have taken back."""
    doubtful = history.written.keys() - history.committed
    sent: dict[str, set[tuple[str, int, int]]] = {}
    known: set[tuple[str, int, int]] = set()
    taken_back: set[tuple[str, int, int]] = set()
    for op in history.ops:
        place = (op.topic, op.partition, op.offset)
        if op.action is Action.SEND and op.outcome is Outcome.FAIL:
            taken_back |= sent.pop(op.value, set())
        elif op.offset >= 0 and op.value not in doubtful and op.outcome in (Outcome.OK, Outcome.FAIL):
            known.add(place)
            if op.action is Action.SEND:
                sent.setdefault(op.value, set()).add(place)
    return known - taken_back


def _received_by_group(history: History) -> dict[tuple[str, str, int, int], set[str]]:
    """Group, topic, partition, offset -> the members that received the record there."""
    members: dict[tuple[str, str, int, int], set[str]] = {}
    for op in history.of(Action.DELIVER, Outcome.OK, Outcome.FAIL):
        if op.group:
            members.setdefault((op.group, op.topic, op.partition, op.offset), set()).add(op.process)
    return members


def _anomaly(kind: Kind, op: Op, detail: str) -> Anomaly:
    return Anomaly(kind, op.value, op.key, op.process, op.at, detail)


def _in_time(anomalies: Iterable[Anomaly]) -> list[Anomaly]:
    return sorted(anomalies, key=lambda anomaly: anomaly.at)
