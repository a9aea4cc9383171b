"""Transactions taken step by step, so that the race which an experiment is about is certain on every machine.

And one race that cannot be had by hand: see `turns`.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from outbox.stage.contended import AUDIT, LOCK, NUMBER, Counter, Shape, changing, take_turns
from outbox.table import insert_event
from shared.event import Event
from shared.history import Action, Outcome, Recorder, now
from shared.postgres import Connection, connect

OVERTAKEN = """
select count(*) from (select xid < lag(xid) over (partition by aggregate_id order by sequence) as older from outbox) at
where older
"""
RATE = 50  # events per second beside a long transaction


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


def changed(order: str) -> Event:
    """An event of the order, which gets its number from `changing`."""
    return Event("shop.order.changed", "/shop/orders", order, {})


def written(recorder: Recorder, event: Event) -> None:
    """Write down that the event's transaction has committed."""
    recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.subject, seq=event.sequence)


def overtake(counter: Counter, passed: Callable[[str], object]) -> None:
    """Three transactions at two orders. Neither positions nor ids are in the order of commits, or of one order's lock.

    The eldest writes its audit row, and is overtaken at its order by the youngest. The middle one has the lowest
    position, and commits last, when `passed` says that the eldest's event, given its id, was read.
    """
    one, other = counter.keys[:2]
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(counter.history, "by-hand"))
        eldest, middle, youngest = (stack.enter_context(connect(counter.conninfo)) for _ in range(3))
        with ExitStack() as still_open:
            with eldest.transaction():
                eldest.execute(AUDIT, ["it has its id"])
                low = still_open.enter_context(changing(middle, Shape.AUDIT_FIRST, changed(other), counter.topic))
                with changing(youngest, Shape.AUDIT_FIRST, changed(one), counter.topic) as first:
                    pass
                written(recorder, first)
                with changing(eldest, Shape.UPDATE_FIRST, changed(one), counter.topic) as second:
                    pass
            written(recorder, second)
            passed(second.id)
        written(recorder, low)


def write_steadily(counter: Counter, seconds: float) -> dict[str, int]:
    """One service that changes an order RATE times a second; returns every event's moment (see Held)."""
    began, moments = time.monotonic(), {}
    with Recorder(counter.history, "steady") as recorder, connect(counter.conninfo) as connection:
        for number in range(round(seconds * RATE)):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            with changing(connection, Shape.UPDATE_FIRST, changed(counter.keys[0]), counter.topic) as event:
                moments[event.id] = now()
            written(recorder, event)
    return moments


def insert_first(counter: Counter) -> None:
    """EVENT_FIRST at one order: who has inserted its event first gets the order's lock second."""
    with (
        Recorder(counter.history, "by-hand") as recorder,
        connect(counter.conninfo) as slow,
        connect(counter.conninfo) as quick,
    ):
        late = changed(counter.keys[0])
        with slow.transaction():
            insert_event(slow, late, counter.topic)
            with changing(quick, Shape.EVENT_FIRST, changed(late.subject), counter.topic) as early:
                pass
            written(recorder, early)
            [(version,)] = slow.execute(LOCK, [late.subject]).fetchall()
            slow.execute(NUMBER, [version, late.id])
        written(recorder, replace(late, sequence=version))


def turns(counter: Counter, shape: Shape) -> None:
    """A process: the services take their turns, and once more, until one has overtaken an older one at its order.

    An UPDATE has its transaction's id before it waits for the row. When the row is free again, who comes just then may
    be sooner there than who is being woken. Nobody can step that by hand; it is never long in coming.
    """
    with connect(counter.conninfo) as connection:
        before = overtaken(connection)
        while overtaken(connection) == before:
            take_turns(counter, shape)
            counter = replace(counter, seed=counter.seed + 1)


def overtaken(connection: Connection) -> int:
    """How many events are of a transaction that is older than that of their order's event before."""
    [(count,)] = connection.execute(OVERTAKEN).fetchall()
    return int(count)
