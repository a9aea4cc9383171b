"""The crash windows: between any two steps of a protocol, a process may die. A test passes a hook that dies there."""

from collections.abc import Callable
from enum import StrEnum

Hook = Callable[[str], None]  # called with the window that is passed


def nowhere(window: str) -> None:
    """The hook of normal operation: nothing happens in any window."""


class ProjectionWindow(StrEnum):
    """Where a projector can die while it takes one batch into the read model."""

    AFTER_READ = "after read"
    BETWEEN = "between model and checkpoint"
    AFTER_BOTH = "after both"  # one transaction: before its commit
    AFTER_COMMIT = "after commit"


class RebuildWindow(StrEnum):
    """Where a rebuild can die."""

    BUILDING = "while building"
    SWITCHING = "before the switch commits"
    SWITCHED = "after the switch"


class EffectWindow(StrEnum):
    """Where a sender can die while it has one effect."""

    BEFORE = "before both"
    BETWEEN = "between sending and noting"
    AFTER = "after both"
