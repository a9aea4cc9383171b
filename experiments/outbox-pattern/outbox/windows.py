"""The crash windows: between any two steps of a protocol, a process may die."""

from enum import StrEnum


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
