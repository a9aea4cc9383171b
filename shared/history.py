"""The record of what was attempted and what happened, one JSON object a line.

Every process of a run appends to the same file. One `os.write` with O_APPEND per line: lines of several processes do
not mix, and what a process recorded before kill -9 is there after it, since the page cache survives the process.

The model is Jepsen's (jepsen.history): an operation is *invoked*, then ends `ok`, `fail` (it certainly did not happen)
or `unknown` (the caller cannot tell: time-out, crash). A process that dies leaves an `invoke` with no end, which counts
as unknown. A final read of the source of truth (`Action.READ`) settles what is unknown.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType

import msgspec

from shared.errors import HistoryError


class Action(StrEnum):
    """What was done."""

    WRITE = "write"  # the business transaction that gives rise to the event
    SEND = "send"  # the event handed to the broker
    DELIVER = "deliver"  # the event received by a consumer
    EFFECT = "effect"  # what the consumer did because of it
    READ = "read"  # the event's business row, found in the source of truth when all was over
    FAULT = "fault"  # kill, pause, cut; `note` says which


class Outcome(StrEnum):
    """How it went."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Op(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `at` is CLOCK_MONOTONIC in ns, which all processes of one machine share."""

    at: int
    process: str
    action: Action
    outcome: Outcome
    value: str = ""  # event id, unique in the run
    key: str = ""  # aggregate id
    seq: int = 0  # position within the key, from 1; 0: not numbered
    topic: str = ""
    partition: int = -1
    offset: int = -1
    note: str = ""
    until: int = 0  # faults: end in ns; 0: an instant
    group: str = ""  # consumer group, where several processes read as one
    figures: dict[str, int] = {}  # what was counted in it, by name

    @property
    def reader(self) -> str:
        """Who reads: the consumer group, or the process where there is none."""
        return self.group or self.process


def now() -> int:
    """The time of an operation: CLOCK_MONOTONIC in ns."""
    return time.monotonic_ns()


class Recorder:
    """Appends operations to a history file. Safe to open in any number of processes; close it, or use `with`."""

    def __init__(self, path: Path, process: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.process = process
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)

    def add(self, *ops: Op) -> None:
        """Append whole operations, in one write. Raises HistoryError when the disk takes only a part."""
        lines = b"".join(self._encoder.encode(op) + b"\n" for op in ops)
        if (written := os.write(self._file, lines)) != len(lines):
            raise HistoryError(f"{self.path}: wrote {written} of {len(lines)} bytes; is the disk full?")

    def record(
        self,
        action: Action,
        outcome: Outcome,
        value: str = "",
        *,
        key: str = "",
        seq: int = 0,
        topic: str = "",
        partition: int = -1,
        offset: int = -1,
        note: str = "",
        process: str = "",
        group: str = "",
        figures: Mapping[str, int] | None = None,
    ) -> None:
        """Append one operation that happened now, in this process unless `process` names another."""
        name = process or self.process
        counted = dict(figures or {})
        place = topic, partition, offset
        self.add(Op(now(), name, action, outcome, value, key, seq, *place, note, group=group, figures=counted))


class History:
    """The operations of one run in the order of their time. Reading questions are answered once and kept."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops: tuple[Op, ...] = tuple(sorted(ops, key=lambda op: op.at))

    @classmethod
    def read(cls, *paths: Path) -> "History":
        """Read history files. Raises HistoryError naming file and line on anything that is not an operation."""
        return cls(op for path in paths for op in _lines(path))

    def __len__(self) -> int:
        return len(self.ops)

    def of(self, action: Action, *outcomes: Outcome) -> Iterator[Op]:
        """Operations of one action, of any outcome unless some are named."""
        return (op for op in self.ops if op.action is action and (not outcomes or op.outcome in outcomes))

    @cached_property
    def faults(self) -> tuple[Op, ...]:
        return tuple(self.of(Action.FAULT))

    @cached_property
    def written(self) -> dict[str, Op]:
        """Last word on every write by its value: `ok`, `fail`, or `unknown` (also where the writer died).

        An `ok` stays. The `fail` of a second attempt does not settle a first one whose end is unknown.
        """
        last: dict[str, Op] = {}
        doubted: set[str] = set()
        for op in self.of(Action.WRITE):
            before = last[op.value].outcome if op.value in last else Outcome.FAIL
            if op.outcome is Outcome.INVOKE and before in (Outcome.INVOKE, Outcome.UNKNOWN):
                doubted.add(op.value)
            if before is not Outcome.OK and not (op.outcome is Outcome.FAIL and op.value in doubted):
                last[op.value] = op
        return last

    @cached_property
    def settled(self) -> bool:
        """Whether a final read was made (`Recorder.record(Action.READ, ...)`, at least a closing one)."""
        return any(True for _ in self.of(Action.READ, Outcome.OK))

    @cached_property
    def found(self) -> frozenset[str]:
        """Values that the final read found."""
        return frozenset(op.value for op in self.of(Action.READ, Outcome.OK) if op.value)

    @cached_property
    def committed(self) -> frozenset[str]:
        """Values whose write took effect: acknowledged, or unknown and found by the final read."""
        acknowledged = {value for value, op in self.written.items() if op.outcome is Outcome.OK}
        return frozenset(acknowledged | (self.found & self.written.keys() - self.aborted))

    @cached_property
    def aborted(self) -> frozenset[str]:
        """Values whose write certainly did not happen, as its writer was told."""
        return frozenset(value for value, op in self.written.items() if op.outcome is Outcome.FAIL)

    @cached_property
    def delivered(self) -> tuple[Op, ...]:
        return tuple(self.of(Action.DELIVER, Outcome.OK))


def _lines(path: Path) -> Iterator[Op]:
    decoder = msgspec.json.Decoder(Op)
    try:
        lines = path.open("rb")
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}") from error
    with lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise HistoryError(f"{path}:{number} is not an operation: {error}") from error
