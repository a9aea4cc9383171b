"""The crash windows: between any two steps of a protocol, a process may die."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shared.faults import Crash, Hook, nowhere
from shared.history import Recorder


class EffectWindow(StrEnum):
    """Where whoever carries out a step can die (the hook of services.participant.perform)."""

    BEFORE = "before the effect"
    IN = "in the transaction of the effect"
    AFTER = "after the effect"


class WorkerWindow(StrEnum):
    """Where a worker of our orchestrator can die while it handles what has happened."""

    READ = "after replies are read"
    SAVED = "before the commit of the new state"
    COMMITTED = "after the commit, before the commands are sent"
    SENT = "after the commands are sent"


class HostWindow(StrEnum):
    """Where a host of services can die while it carries out commands."""

    READ = "after commands are read"
    DONE = "before the commit of the effects"
    COMMITTED = "after the commit, before the answers are sent"
    SENT = "after the answers are sent"


@dataclass(frozen=True)
class Kill:
    """kill -9 in a window, the nth time that it is passed. The fault is written to `history` first."""

    window: StrEnum
    history: Path
    nth: int = 1
    process: str = "worker"


@contextmanager
def hook(kill: Kill | None) -> Iterator[Hook]:
    """The hook to pass as `at`: it kills this process, or does nothing without a kill."""
    if kill is None:
        yield nowhere
        return
    with Recorder(kill.history, kill.process) as recorder:
        yield Crash(recorder, kill.window, kill.nth)
