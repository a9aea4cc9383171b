"""A Postgres session for a service that outlives its server: made again when it was lost."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from shared.postgres import Connection, connect

T = TypeVar("T")

AWAY = psycopg.OperationalError, psycopg.InterfaceError  # what a session raises whose server is away
AGAIN = 0.02  # seconds before the next attempt


class Session:
    """One connection at a time. What was under way on a lost one is in doubt: repeat only what may be done twice."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._connection: Connection | None = None

    def get(self) -> Connection:
        """The connection, or a new one. Raises OperationalError where there is none to be had."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.conninfo)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def keep_trying(
    work: Callable[[], T], away: tuple[type[Exception], ...] = AWAY, stop: threading.Event | None = None
) -> T | None:
    """What the work returns; where a server is away it is done again after a moment. None: it was told to stop.

    Each failed attempt is a line of output, with the time in ns since boot.
    """
    stop = stop or threading.Event()
    while not stop.is_set():
        try:
            return work()
        except away as error:
            print(f"{time.monotonic_ns()} again after {type(error).__name__}: {error}")
            stop.wait(AGAIN)
    return None
