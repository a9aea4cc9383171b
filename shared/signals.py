"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP): each ends a command once, and none breaks off its clean-up.

One that is ignored when a command starts stays ignored: `nohup` and a shell's background jobs mean it.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HEARD = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def heed() -> None:
    """From now on the first of them raises KeyboardInterrupt in the main thread; those after it are not heard."""
    for number in _listening():
        signal.signal(number, _first)


def end() -> NoReturn:
    """What the first signal does, of our own accord."""
    for number in _listening():
        signal.signal(number, _not_heard)
    raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[None]:
    """None of them is heard in the block: what must be cleaned up is."""
    with _handled(_not_heard):
        yield


@contextmanager
def passed_on(to: Callable[[], None]) -> Iterator[list[int]]:
    """In the block they call `to`, and are in the list that it is given; what they mean for us is up to the block."""
    heard: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        _not_heard(number, frame)
        heard.append(number)
        to()

    with _handled(pass_on):
        yield heard


def _listening() -> list[signal.Signals]:
    return [number for number in HEARD if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = {number: signal.signal(number, handler) for number in _listening()}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _first(number: int, frame: FrameType | None) -> None:
    _not_heard(number, frame)
    end()


def _not_heard(number: int, frame: FrameType | None) -> None:
    """After SIGHUP nobody reads what is said, and saying it would be an error of its own."""
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in _terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)


# Asked while there is one: of a closed terminal nobody can tell that it was one.
_terminals = [stream for stream in (0, 1, 2) if os.isatty(stream)]
