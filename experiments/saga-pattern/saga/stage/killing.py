"""Processes that die in a window, and say so in a history first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saga.windows import Hook, nowhere
from shared.faults import Kill
from shared.history import Recorder


@dataclass(frozen=True, kw_only=True)
class RecordedKill(Kill):
    """A kill that is written to `history` first, as one of this process. Can be sent to it."""

    history: Path
    process: str = "worker"


@contextmanager
def hook(kill: RecordedKill | None) -> Iterator[Hook]:
    """The hook to pass as `at`: it kills this process, or does nothing without a kill."""
    if kill is None:
        yield nowhere
        return
    with Recorder(kill.history, kill.process) as recorder:
        yield kill.hook(recorder)


def doomed(kill: RecordedKill | None, target: Callable[..., object], *arguments: object, **options: object) -> None:
    """A process: the target, which takes a hook, and dies where the kill says."""
    with hook(kill) as at:
        target(*arguments, at=at, **options)
