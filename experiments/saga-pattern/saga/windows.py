"""The crash windows: between any two steps of a protocol, a process may die."""

from collections.abc import Callable
from enum import StrEnum

from saga.order import STEPS

Hook = Callable[[str], None]  # is called in every window, with its name


def nowhere(window: str) -> None:
    """The hook of normal operation: nothing happens in any window."""


class CallWindow(StrEnum):
    """Where a process can die that makes four calls."""

    BEFORE = "before place-order"
    PLACED = "after place-order"
    RESERVED = "after reserve-stock"
    CHARGED = "after charge-payment"
    SHIPPED = "after ship-order"


CALLED = dict(zip(STEPS, list(CallWindow)[1:], strict=True))  # the window after the call of each step


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


class ServiceWindow(StrEnum):
    """Where a service of the choreography can die."""

    READ = "after events are heard"
    DONE = "before the commit of their effects"
    COMMITTED = "after the commit, before the answers are sent"
    SENT = "after the answers are sent, before they are marked"
    MARKED = "after the answers are marked"
