"""Waiting for a condition, never for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from shared.errors import DeadlineExceeded

T = TypeVar("T")
PAUSE = 0.02  # seconds between two looks


def until(what: str, condition: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The condition's first truthy value. Raises DeadlineExceeded naming `what` and the last value seen."""
    deadline = time.monotonic() + seconds
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"waited {seconds:g} s for {what}; last seen: {seen!r}")
        time.sleep(PAUSE)
