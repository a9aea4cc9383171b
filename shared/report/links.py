"""Which attempt gave rise to which: write -> send -> deliver -> effect of one event."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.history import Action, Outcome
from shared.report.attempts import Attempt

STAGES = (Action.WRITE, Action.SEND, Action.DELIVER, Action.EFFECT)


@dataclass(frozen=True, slots=True)
class Link:
    """From one attempt to a later one of the same event, both as places in the sequence given."""

    source: int
    target: int


def links(attempts: Sequence[Attempt]) -> list[Link]:
    """One link into every attempt that an earlier one explains."""
    values: dict[str, dict[Action, list[int]]] = {}
    for place, attempt in enumerate(attempts):
        values.setdefault(attempt.op.value, {}).setdefault(attempt.op.action, []).append(place)
    return [link for stages in values.values() for link in _of_value(attempts, stages)]


def _of_value(attempts: Sequence[Attempt], stages: dict[Action, list[int]]) -> list[Link]:
    found: list[Link] = []
    claimed: set[tuple[str, int]] = set()
    for action in STAGES[1:]:
        for target in stages.get(action, []):
            earlier = STAGES[: STAGES.index(action)]
            source = _source(attempts, target, stages, earlier, claimed)
            if source is not None:
                claimed.add((attempts[target].op.reader, source))
                found.append(Link(source, target))
    return found


def _source(
    attempts: Sequence[Attempt],
    target: int,
    stages: dict[Action, list[int]],
    earlier: tuple[Action, ...],
    claimed: set[tuple[str, int]],
) -> int | None:
    """The best of the nearest earlier stage that was recorded at all before the target."""
    for action in reversed(earlier):
        before = [place for place in stages.get(action, []) if _may_cause(attempts[place], attempts[target])]
        if before:
            return min(before, key=lambda place: _fit(attempts, place, target, claimed))
    return None


def _may_cause(source: Attempt, target: Attempt) -> bool:
    return source.start <= target.start and source.op.outcome is not Outcome.FAIL


def _fit(
    attempts: Sequence[Attempt], place: int, target: int, claimed: set[tuple[str, int]]
) -> tuple[bool, bool, bool, int]:
    source, op = attempts[place], attempts[target].op
    same_record = op.offset >= 0 and (source.op.topic, source.op.partition, source.op.offset) == (
        op.topic, op.partition, op.offset,
    )  # fmt: skip
    within = op.action is Action.EFFECT and source.op.process == op.process
    # A reader meets sends in their order; a send or an effect follows the latest cause.
    first = op.action is Action.DELIVER
    repeated = first and (op.reader, place) in claimed
    return (not same_record, not within, repeated, source.start if first else -source.start)
