"""Several things at once, in threads that an interrupted experiment does not wait for; and things in good time."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What the function returns for each item, in a thread for each. Raises what the first of them raised."""
    begun = [begin(partial(function, item)) for item in items]
    return [future.result() for future in begun]


def begin(function: Callable[[], R], slots: Semaphore | None = None) -> Future[R]:
    """Call the function in a thread, as soon as one of the slots is free.

    Ctrl-C is raised at once where somebody waits for the result. The thread is a daemon: what it waits for goes away
    with the servers. An executor's would be joined, for as long as its waits last.
    """
    future: Future[R] = Future()

    def run() -> None:
        with slots or nullcontext():
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def paced(items: Iterable[T], rate: float, stop: Event | None = None) -> Iterator[T]:
    """The items, so many per second from now on, until told to stop. Who falls behind catches up."""
    stop, began = stop or Event(), time.monotonic()
    for number, item in enumerate(items):
        if stop.wait(max(0.0, began + number / rate - time.monotonic())):
            return
        yield item
