"""What processes and Postgres have used: read it before and after, and take the difference."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psutil

from shared.postgres import connect, number


@dataclass(frozen=True)
class Usage:
    """What processes have used by now. A page that several share counts once (PSS), where the system tells."""

    cpu: float  # seconds
    written: float  # kB handed to the file system
    memory: float  # MB, at the time

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Usage":
        """Of these processes and all below them."""
        family = list({member for pid in pids for member in _family(pid)})
        return cls(sum(map(_cpu, family)), sum(map(_written, family)) / 1e3, sum(map(_memory, family)) / 1e6)

    def __sub__(self, before: "Usage") -> "Usage":
        """Used in between. The memory is that of the end."""
        return Usage(self.cpu - before.cpu, self.written - before.written, self.memory)


@dataclass(frozen=True)
class Journal:
    """Postgres' write-ahead log by now: how often it was forced to the disk, and its length in bytes.

    Sessions report their flushes when they end, and else after some seconds: read it when they are closed.
    """

    flushes: int
    length: int

    def __sub__(self, before: "Journal") -> "Journal":
        return Journal(self.flushes - before.flushes, self.length - before.length)

    @classmethod
    def read(cls, conninfo: str) -> "Journal":
        """PostgreSQL 18 documentation, "The Cumulative Statistics System": pg_stat_io; before 18, pg_stat_wal."""
        with connect(conninfo) as connection:
            flushes = "select coalesce(sum(fsyncs), 0) from pg_stat_io where object = 'wal'"
            if connection.info.server_version < 180000:
                flushes = "select wal_sync from pg_stat_wal"
            length = "select pg_current_wal_insert_lsn() - '0/0'"
            return cls(number(connection, flushes), number(connection, length))


def _family(pid: int) -> Iterator[psutil.Process]:
    try:
        process = psutil.Process(pid)
        yield from (process, *process.children(recursive=True))
    except psutil.NoSuchProcess:
        return


def _cpu(process: psutil.Process) -> float:
    """Its own, and that of children that have ended: those that live are in the family themselves."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _written(process: psutil.Process) -> int:
    try:
        return int(process.io_counters().write_bytes) if hasattr(process, "io_counters") else 0
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
