"""A state to begin the fold from. A cache beside the events, never in place of them.

A snapshot holds what the rules of one program made of the events. Other rules would have made something else: so it
carries the version of the state, and one of another version is ignored, counted, and replaced by the next save.
"""

import copy
import logging
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus

from shared import codec
from shared.errors import NotWritable
from shared.postgres import Connection
from sourcing.aggregate import Aggregate
from sourcing.errors import MISFITS
from sourcing.event import TOMBSTONE, Data
from sourcing.postgres import run

SCHEMA = Path(__file__).with_name("snapshots.sql")
# The snapshot, whether the event that it was taken at is there, and how its stream ends: index look-ups, one statement.
# Where that event was scavenged, what comes behind it must be there: the stream was truncated, and goes on.
NEWEST = """
select snapshots.version, state_version, state, extract(epoch from clock_timestamp() - taken_at)::float8,
       coalesce(last.version, 0), last.type,
       coalesce(event.id = snapshots.event_id, last.version > snapshots.version and exists (
           select from stream_metadata as kept
           where kept.stream = snapshots.stream and kept.truncate_before > snapshots.version), false)
from snapshots left join events as event on event.stream = snapshots.stream and event.version = snapshots.version
left join lateral (
    select version, type from events where events.stream = snapshots.stream order by version desc limit 1
) as last on true
where snapshots.stream = %s
"""
# A late writer does not replace a newer snapshot; one of another state version, or of events gone, is nobody's loss.
TAKE = """
insert into snapshots (stream, version, event_id, state_version, state)
select stream, version, id, %s, %s from events where stream = %s and version = %s
on conflict (stream) do update
set version = excluded.version, event_id = excluded.event_id, state_version = excluded.state_version,
    state = excluded.state, taken_at = clock_timestamp()
where snapshots.version < excluded.version or snapshots.state_version <> excluded.state_version
   or not exists (select from events where events.stream = snapshots.stream and events.version = snapshots.version
                                       and events.id = snapshots.event_id)
"""

log = logging.getLogger(__name__)
_decode = codec.decoder(Data)


class Ignored(StrEnum):
    """Why a snapshot was not used."""

    STATE_VERSION = "state version"  # made by a program with other rules
    UNDECODABLE = "undecodable"  # its bytes are not JSON, or not a state
    AHEAD = "ahead of its stream"  # the events were restored from a backup that is older
    OTHER_EVENTS = "of other events"  # likewise, and the stream has gone on since
    DELETED = "stream deleted"


class Taken(NamedTuple):
    """What is known of an aggregate's last snapshot: its version (0: none), and when, by the monotonic clock (s)."""

    version: int = 0
    at: float = float("-inf")


class Frequency(Protocol):
    """When to take a snapshot of an aggregate that was just saved at `version`."""

    def due(self, version: int, last: Taken) -> bool: ...


@dataclass(frozen=True)
class EveryEvents:
    """A load never folds many more than `count` events."""

    count: int

    def due(self, version: int, last: Taken) -> bool:
        return version - last.version >= self.count


@dataclass(frozen=True)
class AtMostEvery:
    """A busy stream costs one snapshot per so many seconds, whatever is written."""

    seconds: float

    def due(self, version: int, last: Taken) -> bool:
        return version > last.version and time.monotonic() - last.at >= self.seconds


class OnDemand:
    """Only by `take`: from a nightly job, or before a sale."""

    def due(self, version: int, last: Taken) -> bool:
        return False


class PostgresSnapshots:
    """Snapshots in the database of the events. Taken in the caller's transaction where there is one."""

    def __init__(self, connection: Connection, frequency: Frequency) -> None:
        self.connection = connection
        self.frequency = frequency
        self.taken = self.used = self.failed = 0
        self.bytes = 0  # of all states taken
        self.ignored: Counter[Ignored] = Counter()
        self._last: WeakKeyDictionary[Aggregate, Taken] = WeakKeyDictionary()

    def restore(self, aggregate: Aggregate) -> None:
        """Bring a fresh aggregate to its newest snapshot; leave it as it is when there is none that can be used."""
        row = run(self.connection.cursor(binary=True), NEWEST, [aggregate.stream]).fetchone()
        if row is None:
            return
        version, state_version, state, age, last, last_type, there = row
        if last_type == TOMBSTONE:
            self.ignored[Ignored.DELETED] += 1
        elif state_version != aggregate.state_version:
            self.ignored[Ignored.STATE_VERSION] += 1
        elif version > last:
            self.ignored[Ignored.AHEAD] += 1
        elif not there:
            self.ignored[Ignored.OTHER_EVENTS] += 1
        elif not self._restored(aggregate, state):
            self.ignored[Ignored.UNDECODABLE] += 1
        else:
            aggregate.version = version
            self.used += 1
            self._last[aggregate] = Taken(version, time.monotonic() - age)

    def offer(self, aggregate: Aggregate) -> None:
        """Take a snapshot if it is due. A failure is logged and counted, since the events are saved."""
        if not self.frequency.due(aggregate.version, self._last.get(aggregate, Taken())):
            return
        try:
            self.take(aggregate)
        except (psycopg.Error, NotWritable) as error:
            self.failed += 1
            log.warning("no snapshot of %s at version %d: %s", aggregate.stream, aggregate.version, error)

    def take(self, aggregate: Aggregate) -> None:
        """Keep its state now. Raises ValueError where it has events that are not saved, or none, and NotWritable."""
        if aggregate.uncommitted or not aggregate.version:
            raise ValueError(f"{aggregate.stream}: a snapshot is of saved events, and of one at least")
        state = codec.encode(aggregate.state())
        self._write([aggregate.state_version, state, aggregate.stream, aggregate.version])
        self.taken += 1
        self.bytes += len(state)
        self._last[aggregate] = Taken(aggregate.version, time.monotonic())

    def forget(self, stream: str) -> None:
        """Delete the stream's snapshot."""
        self.connection.execute("delete from snapshots where stream = %s", [stream])

    def _write(self, row: list[object]) -> None:
        if self.connection.info.transaction_status == TransactionStatus.IDLE:
            run(self.connection.cursor(), TAKE, row)
            return
        with self.connection.transaction():  # a savepoint: when it fails, the events of the caller's transaction stay
            self.connection.execute(TAKE, row, prepare=True)

    def _restored(self, aggregate: Aggregate, state: bytes) -> bool:
        """Whether the state could be used; where not, the aggregate is as fresh as before, not half restored."""
        before = copy.deepcopy(vars(aggregate))
        try:
            aggregate.restore(_decode(state))
        except MISFITS:
            vars(aggregate).clear()
            vars(aggregate).update(before)
            return False
        return True
