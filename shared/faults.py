"""Faults on purpose, each written to the history: kill, pause, restart, cut, slow, and named crash windows.

A run that meant to have a fault and had none proves nothing: `require` makes it fail.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shared.errors import FaultNotFired
from shared.history import Action, History, Op, Outcome, Recorder
from shared.proxy import Proxy

Hook = Callable[[str], None]


def nowhere(window: str) -> None:
    """The hook of normal operation: nothing happens in any window."""


class Crash:
    """A hook that ends this process with kill -9 when it passes the named window for the nth time.

    The fault is recorded first; the line survives, since the kernel has it (see shared.history).
    """

    def __init__(self, recorder: Recorder, window: str, nth: int = 1) -> None:
        self.recorder = recorder
        self.window = window
        self.left = nth

    def __call__(self, window: str) -> None:
        if window != self.window:
            return
        self.left -= 1
        if self.left == 0:
            self.recorder.record(Action.FAULT, Outcome.OK, note=f"SIGKILL {window}")
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Kill:
    """kill -9 in a window, at the nth time that it is passed. Give it to a worker, which makes its hook of it."""

    window: str
    nth: int = 1

    def hook(self, recorder: Recorder) -> Hook:
        return Crash(recorder, self.window, self.nth)


def hook(kill: Kill | None, recorder: Recorder) -> Hook:
    """The hook to pass as `at`: it kills this process, or does nothing without a kill."""
    return kill.hook(recorder) if kill else nowhere


class Victim(Protocol):
    """What can be harmed: a server's Handle or a Worker."""

    @property
    def name(self) -> str: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def start(self) -> object: ...


class Faults:
    """Does harm and writes it down."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def kill(self, victim: Victim) -> None:
        """kill -9."""
        at = time.monotonic_ns()
        victim.kill()  # what could not be done is not written down as done
        self.recorder.add(Op(at, victim.name, Action.FAULT, Outcome.OK, note="SIGKILL"))

    @contextmanager
    def down(self, victim: Victim) -> Iterator[None]:
        """kill -9 at the start of the block, started again at its end."""
        with self._lasting(victim.name, "SIGKILL, restart", victim.kill):
            yield
            victim.start()

    @contextmanager
    def paused(self, victim: Victim) -> Iterator[None]:
        """SIGSTOP for the time of the block: connections stay open, nothing answers."""
        with self._lasting(victim.name, "SIGSTOP", victim.pause):
            try:
                yield
            finally:
                victim.resume()

    @contextmanager
    def cut(self, proxy: Proxy) -> Iterator[None]:
        """The network is gone for the time of the block: open connections are reset, new ones refused."""
        with self._lasting(proxy.name, "cut", proxy.cut):
            try:
                yield
            finally:
                proxy.restore()

    @contextmanager
    def slow(self, proxy: Proxy, seconds: float) -> Iterator[None]:
        """Every chunk takes `seconds` longer, each way, for the time of the block."""
        with self._lasting(proxy.name, f"slow by {seconds * 1000:g} ms", lambda: setattr(proxy, "delay", seconds)):
            try:
                yield
            finally:
                proxy.delay = 0.0

    @contextmanager
    def _lasting(self, target: str, note: str, begin: Callable[[], None]) -> Iterator[None]:
        began = time.monotonic_ns()
        begin()
        try:
            yield
        finally:
            ended = time.monotonic_ns()
            self.recorder.add(Op(began, target, Action.FAULT, Outcome.OK, note=note, until=ended))


def require(history: History, note: str = "") -> None:
    """Raise FaultNotFired unless the history holds a fault (whose note contains `note`)."""
    if not any(note in fault.note for fault in history.faults):
        seen = ", ".join(sorted({fault.note for fault in history.faults})) or "none"
        raise FaultNotFired(f"no fault {note!r} fired in this run (seen: {seen}): it proves nothing.")
