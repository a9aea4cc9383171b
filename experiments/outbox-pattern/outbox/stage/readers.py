"""Readers of the outbox at work (04): each in a process, and what it reads is written down as a delivery to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outbox.relay import wal
from outbox.relay.message import OutboxRow, Row, text
from outbox.relay.wal import WalRelay
from outbox.stage.counter import SHAPES, Counter
from outbox.stage.shop import Shop, relay
from outbox.table import create
from shared.about import About
from shared.checkers import lost, reordered
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.run import Run
from shared.tap import Tap
from shared.wait import until
from shared.worker import announce, until_told

BATCH = 500


class Pages(Protocol):
    """What every reader can do: hand out the next rows, and move on behind them."""

    def pages(self, limit: int) -> Iterator[list[Row]]: ...


MakeReader = Callable[[Connection], Pages]  # of one that begins at the first row


def follow(conninfo: str, history: Path, make: MakeReader, name: str, interval: float = 0.001) -> None:
    """A process: read until SIGTERM, then what is left. Every row is a delivery to `name`. Announced when it reads.

    `interval`: seconds between two looks when there is no news.
    """
    stop = until_told()
    with Recorder(history, name) as recorder, connect(conninfo) as connection:
        reader = make(connection)
        deliver(reader, recorder)
        announce()
        while not stop.is_set():
            if deliver(reader, recorder) < BATCH:
                stop.wait(interval)
        finish(connection, lambda: deliver(reader, recorder))


def deliver(reader: Pages, recorder: Recorder) -> int:
    """Read a batch, write it down; returns how many rows."""
    read = [OutboxRow._make(row) for rows in reader.pages(BATCH) for row in rows]
    recorder.add(*(_delivery(row, recorder.process) for row in read))
    return len(read)


def finish(connection: Connection, step: Callable[[], int]) -> None:
    """Step until there is no more: all that is committed by now, also what open transactions would hold back."""
    row = connection.execute("select pg_current_xact_id()::text").fetchone()
    ended = "select pg_snapshot_xmin(pg_current_snapshot()) > %s::text::xid8"
    until("earlier transactions to end", lambda: (connection.execute(ended, row).fetchone() or [False])[0])
    while step():
        continue


def _delivery(row: OutboxRow, name: str) -> Op:
    return Op(now(), name, Action.DELIVER, Outcome.OK, text(row.id), text(row.aggregate_id), int(row.sequence))


@dataclass(frozen=True)
class Follower:
    """One reader of an experiment: its history has its name. The log's is a relay, with the consumer of its topic."""

    name: str
    make: MakeReader | type[WalRelay]
    about: About

    @property
    def history(self) -> Path:
        return self.about.run.history_file(self.name)

    def had(self) -> dict[str, int]:
        """What it has had by now: event id -> ns."""
        return {op.value: op.at for op in History.read(self.history).delivered}

    def judge(self, counter: Counter) -> History:
        """Its history, with the writes that all readers share. What it missed and what it reordered are figures."""
        history = self.about.judge(self.name, also=writes(counter))
        for shape in SHAPES:
            of_shape = History.read(counter.of(shape).history).committed
            for name, found in (("events missed", lost(history)), ("events out of order", reordered(history))):
                value = sum(anomaly.value in of_shape for anomaly in found)
                self.about.figure(name, value, "events", x=shape.label, x_label="transaction")
        return history


def writes(counter: Counter) -> list[Path]:
    """The histories of all that is written at the counter."""
    return [counter.history, *(counter.of(shape).history for shape in SHAPES)]


def open_counter(run: Run, count: int, orders: int, services: int, pause: float) -> Counter:
    """Tables, orders, the index that the tutorial's reader wants, and a slot for the log's reader."""
    conninfo, topic = run.schema(), run.topic("orders")
    create(conninfo)
    with connect(conninfo) as connection:
        connection.execute("create index on outbox (position)")
    wal.set_up(conninfo, run.name, run.name)
    if not run.keep:
        run.cleanup(lambda: wal.tear_down(conninfo, run.name))
    counter = Counter(conninfo, topic, run.history_file("writes"), run.seed, count, orders, services, pause)
    counter.open()
    return counter


@contextmanager
def following(run: Run, counter: Counter, followers: Sequence[Follower]) -> Iterator[None]:
    """All of them at work, each in a process; at the end of the block they have read all that there is."""
    with ExitStack() as taps:
        workers = []
        for one in followers:
            if one.make is WalRelay:
                tap = taps.enter_context(_log(run, counter, one))
            else:
                workers.append(run.worker(one.name, follow, counter.conninfo, one.history, one.make, one.name))
        for worker in workers:
            worker.ready()
        yield
        for worker in workers:
            worker.stop()
        tap.wait_for(len(History.read(*writes(counter)).committed))


@contextmanager
def _log(run: Run, counter: Counter, follower: Follower) -> Iterator[Tap]:
    shop = Shop(counter.conninfo, run.endpoints["kafka"], counter.topic, follower.history, run.seed, 0, slot=run.name)
    with Tap("consumer", shop.broker, [shop.topic], run.recorder(follower.name, "experiment")) as tap:
        with run.worker(follower.name, relay, shop, WalRelay):
            yield tap
        tap.catch_up()


@dataclass(frozen=True)
class Held:
    """What was written while a transaction was open and then, and how much of it was read before its end.

    Moments are in ns, as in a history; those of events are just before their commits.
    """

    began: int
    seconds: float  # how long it was open
    committed: Mapping[str, int]  # event id -> moment
    later: Mapping[str, int]
    read: Mapping[str, int]  # reader -> events

    def lags(self, read: Mapping[str, int]) -> dict[float, list[float]]:
        """Seconds since the beginning, to a fifth of its time -> ms from commit to read, of every event that was."""
        found: dict[float, list[float]] = {}
        for event, at in ({**self.committed, **self.later}).items():
            since = (at - self.began) / 1e9 // (self.seconds / 5) * (self.seconds / 5)
            if event in read:
                found.setdefault(round(since, 2), []).append((read[event] - at) / 1e6)
        return found
