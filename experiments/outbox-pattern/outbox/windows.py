"""The crash windows: between any two steps of a protocol, a process may die.

What has windows takes a hook `at`, which is called in every one of them. To copy it, copy these three lines with it.
"""

from collections.abc import Callable
from enum import StrEnum

Hook = Callable[[str], None]


def nowhere(window: str) -> None:
    """The hook of normal operation: nothing happens in any window."""


class WriteWindow(StrEnum):
    """Where a service can die while it does two writes."""

    BEFORE = "before both writes"
    BETWEEN = "between the writes"
    AFTER = "after both writes"


class RelayWindow(StrEnum):
    """Where a relay can die while it moves one batch."""

    AFTER_READ = "after read"
    AFTER_PUBLISH = "after publish"
    AFTER_MARK = "after mark"
    AFTER_COMMIT = "after commit"
