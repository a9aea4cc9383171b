"""Our own code in a process of its own, so that it can be killed as a real service is.

def count(path: Path, limit: int) -> int:      # a function of a module, with arguments that can be pickled
    stop = until_told()                        # set by SIGTERM, which is how it is stopped
    with open(path) as file:
        announce()                             # it is at work
        ...
    return counted

with Worker("counter", log, count, path, limit=10) as worker:
    worker.ready()
    ...
    print(worker.result())
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from shared.errors import StartFailed
from shared.servers.native import last_words
from shared.servers.process import ProcessId
from shared.wait import until

# Forked from a server that has the imports and no threads: ten times faster than spawn, and unlike a plain fork it
# copies no lock that a librdkafka thread of ours holds.
_context = multiprocessing.get_context("forkserver")

PATIENCE = 5.0  # seconds that a worker has to end by itself before it is killed
_READY, _RESULT = "ready", "result"
_parent: list[Connection] = []  # in a worker: what it tells its parent through


def announce(value: Any = None) -> None:
    """Say, in a worker, that it is at work; `value` is what `Worker.ready` returns. Nobody hears it elsewhere."""
    for pipe in _parent:
        pipe.send((_READY, value))


def until_told() -> threading.Event:
    """An event that SIGTERM sets: in a worker's main thread, what to work until."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


class Worker:
    """A function that runs in a Python process of its own. Its output goes to `log`; it dies with its parent."""

    def __init__(self, name: str, log: Path, target: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.name = name
        self.log = log
        self._target = target
        self._arguments = arguments
        self._options = options
        self._process: BaseProcess | None = None

    def start(self) -> "Worker":
        """Start it; also again, after it has ended."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Heeded at the first start of a run only; it spares every worker the second that the imports take.
        ours = "shared", package_of(self._target)
        _context.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] in ours])
        self._said: dict[str, Any] = {}
        self._pipe, theirs = _context.Pipe(duplex=False)
        arguments = (theirs, self.log, self._target, self._arguments, self._options)
        self._process = _context.Process(target=_child, args=arguments, name=self.name, daemon=True)
        self._process.start()
        theirs.close()  # or its end would not be seen
        return self

    def __enter__(self) -> "Worker":
        return self if self._process else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def process(self) -> BaseProcess:
        if self._process is None:
            raise StartFailed(self.name, "it was never started.")
        return self._process

    @property
    def identity(self) -> ProcessId:
        return ProcessId.of(self.process.pid or 0)

    def ready(self, seconds: float = 60.0) -> Any:
        """What it has announced, as soon as it has. Raises StartFailed where it ends before, DeadlineExceeded."""
        return self._hear(_READY, seconds)

    def result(self, seconds: float = 60.0) -> Any:
        """What the target has returned, when it has. Raises StartFailed where it was killed, or ended by an error."""
        value = self._hear(_RESULT, seconds)
        self.wait(seconds)
        return value

    def _hear(self, word: str, seconds: float) -> Any:
        until(f"{self.name}: {word}", lambda: self._heard(word), seconds)
        return self._said[word]

    def _heard(self, word: str) -> bool:
        try:
            while word not in self._said and self._pipe.poll():
                said, value = self._pipe.recv()
                self._said[said] = value
        except (EOFError, OSError):  # it is gone, maybe in the middle of a word
            self.wait()
            raise StartFailed(self.name, f"it ended, and had said no {word}.", self.log) from None
        return word in self._said

    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.join()

    def pause(self) -> None:
        self.identity.signal_family("SIGSTOP")
        self.identity.await_stopped()

    def resume(self) -> None:
        self.identity.signal_family("SIGCONT")

    def stop(self) -> None:
        """SIGTERM, which the target need not handle; returns when it is gone."""
        if self.alive():
            with suppress(psutil.NoSuchProcess):  # it may end by itself at any moment
                self.resume()
            self.process.terminate()
            self.process.join(PATIENCE)
            if self.alive():
                self.process.kill()
        self.process.join()

    def wait(self, seconds: float = 60.0) -> int:
        """The exit code; negative is the signal that ended it. Raises StartFailed when it ended by an error of ours."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.stop()
            raise StartFailed(self.name, f"it did not end within {seconds:g} s.", self.log)
        if code > 0:
            raise StartFailed(self.name, f"it ended with {code}: {last_words(self.log)!r}.", self.log)
        return code


def package_of(target: Callable[..., object]) -> str:
    """The top-level package of a function, also of one with some of its arguments given."""
    function = target.func if isinstance(target, partial) else target
    return str(function.__module__.partition(".")[0])


def _child(
    pipe: Connection, log: Path, target: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in (sys.stdout, sys.stderr):  # the log is in UTF-8, whatever the terminal has
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _parent.append(pipe)
    if (result := target(*arguments, **options)) is not None:
        pipe.send((_RESULT, result))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
