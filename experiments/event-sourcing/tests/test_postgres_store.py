"""The store on Postgres beyond the contract: bad input, rows made by hand, tombstones, transactions, open ones too."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import psycopg
import pytest
from psycopg.errors import CheckViolation, UniqueViolation
from sourcing.errors import (
    EventIdNotAllowed,
    StreamDeleted,
    UndecodablePayload,
    UnknownEventType,
    VersionGap,
    WrongExpectedVersion,
)
from sourcing.event import START, TOMBSTONE, NewEvent, data_of, metadata_of
from sourcing.postgres import PAGE, PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.store import NO_STREAM, StreamMetadata

from shared.event import new_id
from shared.postgres import Connection, connect

STREAM = "account-1"
OPENED, DEPOSITED = NewEvent("AccountOpened", {"owner": "ann"}), NewEvent("Deposited", {"cents": 5})


IDENT = "0193a5d2-0000-7000-8000-000000000000"
MILLION = """
insert into events (stream, version, type, schema_version, id, data, metadata)
select 'account-1', number, 'Deposited', 1, '0193a5d2-0000-7000-8000-000000000000', '{"cents": 5}', '{}'
from generate_series(1, 1000000) as number
"""


def insert(connection: Connection, version: int, type_: str = "Deposited", data: bytes = b'{"cents": 5}') -> None:
    """A row as somebody with psql would make it."""
    connection.execute(
        "insert into events (stream, version, type, schema_version, id, data, metadata)"
        " values (%s, %s, %s, 1, gen_random_uuid(), %s, '[]')",
        [STREAM, version, type_, data],
    )


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[1, 2]", b'"text"', b""], ids=repr)
def test_data_that_is_no_json_object_is_named_by_stream_version_and_type(
    store: PostgresStore, connection: Connection, data: bytes
) -> None:
    insert(connection, 1, "Deposited", data)
    [found] = store.read(STREAM)
    with pytest.raises(UndecodablePayload, match="event 1 of stream 'account-1', type 'Deposited': the data") as seen:
        data_of(found)
    assert (seen.value.stream, seen.value.version, seen.value.type) == (STREAM, 1, "Deposited")


def test_metadata_that_is_none_is_named_too(store: PostgresStore, connection: Connection) -> None:
    insert(connection, 1)
    [found] = store.read_all()
    with pytest.raises(UndecodablePayload, match=r"event 1 of stream 'account-1'.*the metadata"):
        metadata_of(found)


def test_gap_made_by_hand_stops_the_replay_and_names_the_event_after_it(
    store: PostgresStore, connection: Connection
) -> None:
    store.append(STREAM, [OPENED, DEPOSITED])
    insert(connection, 4)
    with pytest.raises(VersionGap, match="event 4 of stream 'account-1', type 'Deposited': version 3 should"):
        Repository(store, Account).load("1")


def test_type_that_nobody_knows_stops_the_replay(store: PostgresStore, connection: Connection) -> None:
    insert(connection, 1, "InterestPaid")
    with pytest.raises(UnknownEventType, match="event 1 of stream 'account-1', type 'InterestPaid'"):
        Repository(store, Account).load("1")


@pytest.mark.parametrize(("version", "refusal"), [(1, UniqueViolation), (0, CheckViolation)])
def test_table_refuses_a_version_that_is_there_or_none_at_all(
    store: PostgresStore, connection: Connection, version: int, refusal: type[Exception]
) -> None:
    store.append(STREAM, [OPENED])
    with pytest.raises(refusal):
        insert(connection, version)


@pytest.mark.parametrize("ident", ["one", "", "0193", "urn:isbn:1", "{", IDENT + "0", IDENT[:-1] + "g", 7], ids=repr)
def test_id_that_is_no_uuid_is_refused_before_anything_is_sent(store: PostgresStore, ident: str) -> None:
    with pytest.raises(EventIdNotAllowed, match=f"'account-1': the id of an event 'Deposited' is no UUID: {ident!r}"):
        store.append(STREAM, [OPENED, NewEvent("Deposited", {"cents": 1}, id=ident)])
    store.connection.close()
    with pytest.raises(EventIdNotAllowed):
        store.append(STREAM, [NewEvent("Deposited", {"cents": 1}, id=ident)], NO_STREAM)


@pytest.mark.parametrize(
    "spelled", [str.upper, lambda text: text.replace("-", ""), "{{{}}}".format, "urn:uuid:{}".format]
)
def test_an_append_repeated_with_its_ids_spelled_otherwise_is_known_again(
    store: PostgresStore, spelled: Callable[[str], str]
) -> None:
    again = replace(OPENED, id=spelled(OPENED.id)), replace(DEPOSITED, id=spelled(DEPOSITED.id))
    assert store.append(STREAM, [OPENED, DEPOSITED], NO_STREAM) == store.append(STREAM, again, NO_STREAM) == 2
    assert store.append("account-2", again) == 2
    assert [event.id for event in store.read("account-2")] == [OPENED.id, DEPOSITED.id]
    with pytest.raises(WrongExpectedVersion):
        store.append(STREAM, [replace(OPENED, id=spelled(new_id()))], NO_STREAM)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("limit", [None, 0, 1, 9, 10, 11, 25, 26, 100])
def test_a_stream_is_read_page_by_page_as_if_it_were_one(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, limit: int | None, backwards: bool
) -> None:
    monkeypatch.setattr("sourcing.postgres.PAGE", 10)
    store.append(STREAM, [NewEvent("Deposited", {"cents": number}) for number in range(26)])
    versions = list(range(2, 27))[:: -1 if backwards else 1][:limit]
    assert [event.version for event in store.read(STREAM, after=1, limit=limit, backwards=backwards)] == versions


def test_two_readings_of_one_store_do_not_disturb_each_other(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sourcing.postgres.PAGE", 2)
    store.append(STREAM, [NewEvent("Deposited", {"cents": 5}) for _ in range(5)])
    pairs = zip(store.read(STREAM), store.read(STREAM, backwards=True), strict=True)
    assert [(up.version, down.version) for up, down in pairs] == [(1, 5), (2, 4), (3, 3), (4, 2), (5, 1)]


def test_reading_a_stream_of_a_million_takes_the_memory_of_a_page(store: PostgresStore) -> None:
    store.connection.execute("drop index events_order")  # which is not read here, and takes long to be written
    store.connection.execute(MILLION)
    process, found = psutil.Process(), store.read(STREAM)
    before = process.memory_info().rss
    for version in range(1, 4 * PAGE):
        assert next(found).version == version
    assert [event.version for event in store.read(STREAM, backwards=True, limit=2)] == [1_000_000, 999_999]
    assert process.memory_info().rss - before < 50_000_000  # bytes; all at once, they are ten times as much


@pytest.mark.parametrize("backwards", [False, True])
def test_missing_versions_do_not_end_a_reading(
    store: PostgresStore, connection: Connection, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    monkeypatch.setattr("sourcing.postgres.PAGE", 2)
    there = [1, 2, 3, 4, 50, 51, 70, 90, 91, 92]
    for version in there:
        insert(connection, version)
    assert [event.version for event in store.read(STREAM, backwards=backwards)] == there[:: -1 if backwards else 1]


def test_id_that_is_no_uuid_is_refused_and_nothing_is_written(store: PostgresStore) -> None:
    with pytest.raises(EventIdNotAllowed, match="no UUID: 'one'"):
        store.append(STREAM, [OPENED, NewEvent("Deposited", {"cents": 1}, id="one")])
    assert list(store.read(STREAM)) == []


def test_tombstone_is_seen_by_those_who_read_all_and_ends_the_stream_once(store: PostgresStore) -> None:
    store.append(STREAM, [OPENED])
    store.delete(STREAM)
    assert [event.type for event in store.read_all()] == ["AccountOpened", TOMBSTONE]
    with pytest.raises(StreamDeleted):
        store.delete(STREAM)


def test_scavenge_leaves_the_last_event_of_a_stream_so_that_its_versions_go_on(store: PostgresStore) -> None:
    store.append(STREAM, [OPENED, DEPOSITED, DEPOSITED])
    store.set_metadata(STREAM, StreamMetadata(truncate_before=100))
    assert (list(store.read(STREAM)), store.scavenge()) == ([], 2)
    assert store.append(STREAM, [DEPOSITED], 3) == 4
    assert [event.version for event in store.read_all()] == [3, 4]


def test_scavenge_leaves_the_tombstone_of_a_deleted_stream(store: PostgresStore) -> None:
    store.append(STREAM, [OPENED, DEPOSITED])
    store.delete(STREAM)
    assert store.scavenge() == 2
    assert [event.type for event in store.read_all()] == [TOMBSTONE]


def test_conflict_inside_a_caller_s_transaction_undoes_the_append_alone(
    store: PostgresStore, connection: Connection
) -> None:
    connection.execute("create table balances (cents int)")
    with store.connection.transaction():
        store.connection.execute("insert into balances values (5)")
        store.append(STREAM, [OPENED], NO_STREAM)
        with pytest.raises(WrongExpectedVersion):
            store.append(STREAM, [DEPOSITED], NO_STREAM)
    assert [event.type for event in store.read(STREAM)] == ["AccountOpened"]
    assert connection.execute("select cents from balances").fetchall() == [(5,)]


def test_events_of_two_streams_are_written_by_one_commit_or_not_at_all(store: PostgresStore) -> None:
    with store.connection.transaction():
        store.append(STREAM, [OPENED])
        store.append("account-2", [OPENED])
        raise psycopg.Rollback
    assert store.read_all() == []


def test_writers_who_expect_any_version_all_get_in_and_leave_no_gap(store: PostgresStore, schema: str) -> None:
    def write(_: int) -> None:
        with connect(schema) as own:
            for _ in range(10):
                PostgresStore(own).append(STREAM, [DEPOSITED, DEPOSITED])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [event.version for event in store.read(STREAM)] == list(range(1, 81))


def test_reader_of_all_waits_for_an_older_transaction_and_then_misses_nothing(
    store: PostgresStore, connection: Connection
) -> None:
    with connection.transaction():
        PostgresStore(connection).append("account-2", [OPENED])
        store.append(STREAM, [OPENED])  # later in the order, and committed first
        assert store.read_all() == []
    assert [event.stream for event in store.read_all()] == ["account-2", STREAM]


def test_subscription_hands_out_tombstones_and_ends_when_it_is_stopped(store: PostgresStore) -> None:
    stop = threading.Event()
    store.append(STREAM, [OPENED])
    store.delete(STREAM)
    following = store.subscribe(START, stop)
    assert [next(following).type, next(following).type] == ["AccountOpened", TOMBSTONE]
    stop.set()
    assert next(following, None) is None


def test_people_can_read_the_events_without_a_program(store: PostgresStore, connection: Connection) -> None:
    store.append(STREAM, [OPENED])
    row = connection.execute("select stream, version, type, data, metadata from events_readable").fetchone()
    assert row == (STREAM, 1, "AccountOpened", '{"owner":"ann"}', "{}")


def test_a_new_stream_is_refused_where_a_scavenge_has_left_only_a_later_version(store: PostgresStore) -> None:
    store.append(STREAM, [OPENED, DEPOSITED, DEPOSITED])
    store.set_metadata(STREAM, StreamMetadata(truncate_before=3))
    store.scavenge()
    with pytest.raises(WrongExpectedVersion, match="expected version 0, it is at 3"):
        store.append(STREAM, [OPENED], NO_STREAM)
