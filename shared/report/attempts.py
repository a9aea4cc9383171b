"""Attempts: an invoke and its end, joined, as the diagram draws them in one mark."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from shared.history import Action, Op, Outcome


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that one process tried. `op` is its last word: an invoke where the process died before the end."""

    start: int  # ns
    op: Op

    @property
    def end(self) -> int:
        return self.op.at

    @property
    def ended(self) -> bool:
        return self.op.outcome is not Outcome.INVOKE


def attempts(ops: Iterable[Op]) -> list[Attempt]:
    """Operations (in time order) joined to attempts, in the order of their ends; without faults and final reads."""
    invoked: dict[tuple[str, Action, str], Op] = {}
    found: list[Attempt] = []
    for op in ops:
        if op.action in (Action.FAULT, Action.READ):
            continue
        same = (op.process, op.action, op.value)
        before = invoked.pop(same, None)
        if op.outcome is Outcome.INVOKE:
            # A second invoke of the same thing means that the first never ended.
            found += [Attempt(before.at, before)] if before else []
            invoked[same] = op
        else:
            found.append(Attempt(before.at if before else op.at, _completed(op, before)))
    found += [Attempt(op.at, op) for op in invoked.values()]
    return sorted(found, key=lambda attempt: attempt.end)


def _completed(end: Op, start: Op | None) -> Op:
    """The end with what only the invoke told: key and number are often recorded once."""
    if start is None or (end.key and end.seq):
        return end
    return msgspec.structs.replace(
        end,
        key=end.key or start.key,
        seq=end.seq or start.seq,
        topic=end.topic or start.topic,
        note=end.note or start.note,
        group=end.group or start.group,
    )
