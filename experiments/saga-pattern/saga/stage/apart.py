"""An object that lives in a process of its own, whose async methods are called from here.

For whatever holds a Temporal client. Its threads may call into Python while the interpreter shuts down, which then
aborts after all work is done (seen in 10 to 20 of 100 exits, with several versions of SDK and Python). A test run or an
experiment whose own process never makes a client cannot be hit. A process made by multiprocessing does not shut the
interpreter down: it ends by `os._exit`.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from shared.errors import DeadlineExceeded, LabError, StartFailed
from shared.worker import Worker

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")
Opened = Callable[[], AbstractAsyncContextManager[S]]


class CallFailed(LabError):
    """A call raised something that is not the house's own; the text is its traceback."""


@dataclass(frozen=True)
class Answer:
    """What came of a call: a value, or an error."""

    value: Any = None
    error: LabError | None = None


class Apart(Generic[S]):
    """The object that `opened` makes, over there. `worker` starts a process: (name, function, *arguments)."""

    def __init__(self, worker: Callable[..., Worker], name: str, opened: Opened[S], patience: float = 120.0) -> None:
        self.patience = patience  # seconds for one call
        self._pipe, theirs = Pipe()
        self.process = worker(name, serve, theirs, opened)
        theirs.close()  # theirs alone now: when they are gone, reading ends
        self._receive("to open")

    def __enter__(self) -> "Apart[S]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(self, method: Callable[Concatenate[S, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`await method(object, ...)` over there. Raises LabErrors as they are, all else as CallFailed."""
        self._pipe.send((method, args, kwargs))
        found: T = self._receive(method.__qualname__)
        return found

    def close(self) -> None:
        """Have the object closed and its process ended."""
        self._pipe.close()
        self.process.process.join(self.patience if self.process.alive() else 0)
        self.process.stop()

    def _receive(self, what: str) -> Any:
        if not self._pipe.poll(self.patience):
            raise DeadlineExceeded(f"waited {self.patience:g} s for {self.process.name} {what}")
        try:
            answer: Answer = self._pipe.recv()
        except EOFError:
            raise StartFailed(self.process.name, "its process has ended.", self.process.log) from None
        if answer.error is not None:
            raise answer.error
        return answer.value


def serve(pipe: Connection, opened: Opened[Any]) -> None:
    """Over there: answer calls until nobody holds the other end of the pipe."""
    asyncio.run(_serve(pipe, opened))


async def _serve(pipe: Connection, opened: Opened[Any]) -> None:
    try:
        async with opened() as subject:
            pipe.send(Answer())
            while request := await asyncio.to_thread(_next, pipe):
                method, args, kwargs = request
                pipe.send(await _answer(method(subject, *args, **kwargs)))
    except Exception:
        pipe.send(Answer(error=CallFailed(traceback.format_exc())))
        raise


async def _answer(call: Awaitable[Any]) -> Answer:
    try:
        return Answer(await call)
    except LabError as error:
        return Answer(error=error)
    except Exception:
        return Answer(error=CallFailed(traceback.format_exc()))


def _next(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return None
