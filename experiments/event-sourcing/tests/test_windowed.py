"""Reading all events by snapshot windows: each once, behind its cause, and behind nobody's transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sourcing.event import NewEvent, Recorded
from sourcing.postgres import PostgresStore
from sourcing.stage import readers
from sourcing.stage.readers import NOTES, Query, by_xid_and_position
from sourcing.windowed import BEGIN, Place, read_window

from shared.postgres import Connection, connect
from shared.snapshot import Snapshot


def append(connection: Connection, *streams: str) -> None:
    for stream in streams:
        PostgresStore(connection).append(stream, [NewEvent("Noted", {})])


def streams(events: Sequence[Recorded]) -> list[str]:
    return [event.stream for event in events]


def read_on(connection: Connection, place: Place, limit: int) -> tuple[list[str], Place]:
    """All that there is, page by page."""
    read: list[str] = []
    for _ in range(10):  # more pages than any of these tests has events
        events, place = read_window(connection, place, limit)
        if not events:
            return read, place
        read += streams(events)
    raise AssertionError(f"it never ends: {read}")


@contextmanager
def having_written(conninfo: str, *written: str) -> Iterator[Connection]:
    """A transaction that stays open."""
    with connect(conninfo) as connection, connection.transaction():
        connection.execute("select pg_current_xact_id()")
        append(connection, *written)
        yield connection


@pytest.mark.parametrize("by_itself", [False, True])
def test_the_cause_comes_first_where_the_pair_has_the_effect_first(
    store: PostgresStore, schema: str, by_itself: bool
) -> None:
    store.connection.execute(NOTES)
    pair, windows = Query("pair", "pair", by_xid_and_position), Query("windows", "windows", read_window, BEGIN)
    read = readers.relate(schema, (pair, windows), by_itself=by_itself)
    assert read[windows] == ["Requested", "Granted"]
    assert (read[pair] == ["Granted", "Requested"]) is not by_itself


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_in_one_window_the_cause_comes_first_too(connection: Connection, schema: str, limit: int) -> None:
    with having_written(schema) as older:
        append(connection, "cause-1")
        append(older, "effect-1")
    assert read_on(connection, BEGIN, limit)[0] == ["cause-1", "effect-1"]
    assert streams(PostgresStore(connection).read_all()) == ["effect-1", "cause-1"]


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_an_open_transaction_holds_nobody_back_and_its_events_are_read_when_it_has_ended(
    connection: Connection, schema: str, limit: int
) -> None:
    with having_written(schema, "early-1"):
        append(connection, "late-1", "late-2")
        assert streams(PostgresStore(connection).read_all()) == []
        read, place = read_on(connection, BEGIN, limit)
        assert read == ["late-1", "late-2"]
    assert read_on(connection, place, limit)[0] == ["early-1"]


def test_what_is_rolled_back_is_never_read_nor_waited_for(connection: Connection, schema: str) -> None:
    with connect(schema) as undone:
        with undone.transaction(force_rollback=True):
            append(undone, "undone-1")
            append(connection, "done-1")
            read, place = read_on(connection, BEGIN, 10)
        append(connection, "done-2")
    assert [*read, *read_on(connection, place, 10)[0]] == ["done-1", "done-2"]


def test_restarted_in_the_middle_of_a_window_it_goes_on_there(connection: Connection, schema: str) -> None:
    append(connection, "old-1", "old-2", "old-3")
    with having_written(schema, "early-1"):
        first, place = read_window(connection, BEGIN, 2)
        append(connection, "new-1")
    with connect(schema) as another:
        place = Place(Snapshot.parse(str(place.previous)), Snapshot.parse(str(place.current)), place.position)
        rest, _ = read_window(another, place, 2)  # of that window: neither what has ended since, nor what is newer
        assert [*streams(first), *streams(rest)] == ["old-1", "old-2", "old-3"]
        assert read_on(another, place, 2)[0] == ["old-3", "early-1", "new-1"]


def test_at_the_end_of_a_window_it_goes_on_with_the_next_one(connection: Connection) -> None:
    append(connection, "note-1", "note-2")
    first, place = read_window(connection, BEGIN, 2)
    append(connection, "note-3")
    second, place = read_window(connection, place, 2)
    assert streams([*first, *second]) == ["note-1", "note-2", "note-3"]
    assert read_window(connection, place, 2)[0] == []
