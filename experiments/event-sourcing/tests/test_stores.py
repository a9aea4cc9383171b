"""What is particular to each store, and that the contract catches a store that is wrong."""

import pickle
import runpy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psycopg
import pytest
from axonclient.client import AxonClient
from confluent_kafka import KafkaError, KafkaException, Producer
from eventsourcing.persistence import StoredEvent
from kurrentdbclient import KurrentDBClient
from kurrentdbclient.exceptions import FailedPreconditionError, NodeIsNotLeaderError
from sourcing.errors import StreamDeleted, StreamNameNotAllowed, UndecodablePayload, WrongExpectedVersion
from sourcing.event import TOMBSTONE, NewEvent, Recorded, data_of, encode
from sourcing.postgres import PostgresStore
from sourcing.stage import questions
from sourcing.stage.contract import ContractBroken, Question, Subject
from sourcing.stage.load import withdraw_at_once
from sourcing.store import ANY, NO_STREAM, Capability, EventStore, StreamMetadata
from sourcing.stores import STORES, Address, created
from sourcing.stores.adapting import NEVER, time_of
from sourcing.stores.axon import AxonStore
from sourcing.stores.kafka import KafkaStore
from sourcing.stores.kafka_owner import OwnershipLost
from sourcing.stores.kurrentdb import KurrentStore
from sourcing.stores.message_db import MessageDbStore

from shared import kafka
from shared.errors import NotAvailable
from shared.postgres import connect, in_schema
from shared.pytest_plugin import Starter
from shared.servers.server import Endpoint
from shared.wait import until

Maker = Callable[[str], Address]


def placed(count: int = 1) -> list[NewEvent]:
    return [NewEvent("Placed", {"b": 1, "a": 2}) for _ in range(count)]


@pytest.fixture
def made(server: Starter) -> Iterator[Maker]:
    """A function that makes an empty store of a kind, gone after the test."""
    with ExitStack() as stores:

        def make(kind: str) -> Address:
            endpoint = server(STORES[kind].server)
            try:
                return stores.enter_context(created(kind, endpoint, f"lab_test_{uuid4().hex[:10]}"))
            except NotAvailable as error:
                pytest.skip(str(error))

        yield make


@pytest.fixture
def opened(made: Maker) -> Iterator[Callable[[Address], Any]]:
    """A function that opens a store, closed after the test."""
    with ExitStack() as handles:

        def open_(address: Address) -> EventStore:
            store = address.open()
            handles.callback(store.close)
            return store

        yield open_


@pytest.fixture
def kurrent() -> Iterator[tuple[Any, KurrentStore]]:
    """The fake of KurrentDB's wire protocol, and the adapter on it."""
    with runpy.run_path(str(Path(__file__).with_name("fake_kurrentdb.py")))["serving"]() as (fake, address):
        store = KurrentStore(KurrentDBClient(f"kurrentdb://{address}?tls=false"))
        yield fake, store
        store.close()


@pytest.fixture
def axon() -> Iterator[tuple[Any, AxonStore]]:
    """Likewise, Axon Server's."""
    with runpy.run_path(str(Path(__file__).with_name("fake_axon.py")))["serving"]() as (fake, address):
        store = AxonStore(AxonClient(address))
        yield fake, store
        store.close()


def test_store_is_gone_after_its_use_and_its_address_can_be_sent_to_another_process(postgres: Endpoint) -> None:
    space = f"lab_test_{uuid4().hex[:10]}"
    with created("PostgreSQL", postgres, space) as address:
        assert pickle.loads(pickle.dumps(address)) == address  # noqa: S301
    with connect(postgres.url) as connection:
        assert connection.execute("select to_regnamespace(%s)", [space]).fetchone() == (None,)


# Kafka


def test_kafka_lets_two_writers_decide_by_the_same_state(made: Maker, opened: Callable[[Address], Any]) -> None:
    store = opened(made("Kafka"))
    assert withdraw_at_once(store, "1", 100, expected=False) == (2, -100)


def test_kafka_s_one_owner_lets_only_the_first_of_them(made: Maker, opened: Callable[[Address], Any]) -> None:
    store = opened(made("Kafka, one owner"))
    assert withdraw_at_once(store, "1", 100, expected=True) == (1, 0)


def test_new_owner_knows_all_versions_and_fences_the_old_one(made: Maker, opened: Callable[[Address], Any]) -> None:
    address = made("Kafka, one owner")
    old = opened(address)
    old.append("order-1", placed(), NO_STREAM)
    new = opened(address)
    assert new.append("order-1", placed(2), 1) == 3
    with pytest.raises(OwnershipLost, match="another owner"):
        old.append("order-1", placed(), 1)
    assert len(list(new.read("order-1"))) == 3


def test_owner_that_does_not_know_whether_it_has_committed_looks_before_it_goes_on(
    made: Maker, opened: Callable[[Address], Any]
) -> None:
    store = opened(made("Kafka, one owner"))
    send = store._send_all

    def lose_the_answer(*arguments: Any) -> None:
        store._send_all = send
        send(*arguments)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    store._send_all = lose_the_answer
    with pytest.raises(KafkaException):
        store.append("order-1", placed(2), NO_STREAM)
    assert store.append("order-1", placed(), 2) == 3


@pytest.fixture
def behind(made: Maker, opened: Callable[[Address], Any]) -> tuple[KafkaStore, KafkaStore, Producer]:
    """A store whose two events are committed; another one, and its open transaction, behind which nobody reads."""
    address, new = made("Kafka"), placed()[0]
    store, other = address.open(), opened(address)
    assert isinstance(store, KafkaStore)
    open_one = other._begin(f"{address.space}-open")
    open_one.begin_transaction()
    other._produce(open_one, "order-2", new, encode("order-2", new))
    open_one.flush()
    store.append("order-1", placed(2))
    return store, other, open_one


def noting(met: threading.Event, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; `met` is set when it has been called, and has not said no."""

    def called(*arguments: Any) -> Any:
        if result := function(*arguments):
            met.set()
        return result

    return called


def test_who_has_committed_to_kafka_reads_it_and_waits_for_that(
    behind: tuple[KafkaStore, KafkaStore, Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (store, _, open_one), met_the_end = behind, threading.Event()
    monkeypatch.setattr(kafka, "at_end", noting(met_the_end, kafka.at_end))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(store.read("order-1")))
        until("it to meet the end", met_the_end.is_set)
        open_one.abort_transaction()
        assert len(reading.result(60)) == 2
    store.close()


def test_what_was_committed_to_kafka_can_be_read_by_others_when_its_store_is_closed(
    behind: tuple[KafkaStore, KafkaStore, Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    (store, other, open_one), reads = behind, threading.Event()
    monkeypatch.setattr(store, "_from", noting(reads, store._from))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(store.close)
        until("it to read once more", reads.is_set)
        open_one.abort_transaction()
        closing.result(60)
        assert len(list(other.read("order-1"))) == 2


def test_reading_one_stream_of_kafka_goes_through_all_of_them(made: Maker, opened: Callable[[Address], Any]) -> None:
    store = opened(made("Kafka"))
    for number in range(50):
        store.append(f"order-{number}", placed())
    assert [event.version for event in store.read("order-7")] == [1]
    assert store.scanned == 50


def test_batch_that_kafka_aborts_is_read_by_nobody(made: Maker, opened: Callable[[Address], Any]) -> None:
    store: KafkaStore = opened(made("Kafka"))
    store.append("order-1", placed(2))
    producer, new = store._transactional, placed()[0]
    assert producer
    producer.begin_transaction()
    store._produce(producer, "order-1", new, encode("order-1", new))
    producer.flush()
    producer.abort_transaction()
    assert len(list(store.read("order-1"))) == len(store.read_all()) == 2


@pytest.mark.parametrize(
    "record",
    [
        {"key": None, "value": None},
        {"key": b"th\xe9", "value": b"{}", "headers": {"type": b"th\xe9", "schema": b"\xff", "id": None}},
        {"key": b"order-1", "value": b"[", "headers": {"type": "Placed", "schema": "9" * 5_000}},
    ],
    ids=["nothing", "Latin-1", "numbers that are none"],
)
def test_record_of_another_program_hides_no_event_in_kafka(
    record: dict[str, Any], made: Maker, opened: Callable[[Address], Any]
) -> None:
    address = made("Kafka, one owner")
    store = opened(address)
    store.append("order-2", placed(), NO_STREAM)
    producer = kafka.producer(address.endpoint)
    producer.produce(address.space, **record)
    producer.flush(60)
    assert opened(address).append("order-2", placed(), 1) == 2
    mine = [event.stream for event in store.read_all() if event.type == "Placed" and event.stream == "order-2"]
    assert (mine, len(store.read_all()), len(list(store.read("order-2")))) == (["order-2"] * 2, 3, 2)


@pytest.mark.parametrize("milliseconds", [2**62, -(2**62), float("nan")])
def test_time_that_is_none_is_taken_for_never(milliseconds: float) -> None:
    assert time_of(milliseconds) == NEVER
    assert time_of(0) == NEVER < time_of(1)


# message-db


def test_message_db_keeps_what_the_json_says_and_not_its_bytes(made: Maker, opened: Callable[[Address], Any]) -> None:
    store = opened(made("message-db"))
    store.append("order-1", new := placed())
    [found] = store.read("order-1")
    assert data_of(found) == new[0].data
    assert (found.data, encode("order-1", new[0])[0]) == (b'{"a": 2, "b": 1}', b'{"b":1,"a":2}')


def test_message_db_orders_within_a_category_and_takes_no_stream_without_one(
    made: Maker, opened: Callable[[Address], Any]
) -> None:
    store: MessageDbStore = opened(made("message-db"))
    for stream in ("order-1", "account-1", "order-2"):
        store.append(stream, placed())
    page = store.read_category("order", limit=1)
    assert [event.stream for event in [*page, *store.read_category("order", page[-1].place)]] == ["order-1", "order-2"]
    with pytest.raises(StreamNameNotAllowed, match="hyphen"):
        store.append("order", placed())


@pytest.mark.parametrize(("stream", "waits"), [("order-2", True), ("account-1", False)])
def test_writers_of_message_db_wait_for_those_of_the_same_category(
    made: Maker, opened: Callable[[Address], Any], stream: str, waits: bool
) -> None:
    address = made("message-db")
    first, second = opened(address), opened(address)
    with ThreadPoolExecutor(1) as pool:
        with first.connection.transaction():
            first.append("order-1", placed())
            writing = pool.submit(second.append, stream, placed())
            assert until("it to wait or to be done", lambda: waiting(address) or (writing.done() and "done")) == (
                "advisory" if waits else "done"
            )
        assert writing.result(10) == 1


def test_message_of_another_program_needs_neither_data_nor_metadata_in_message_db(
    made: Maker, opened: Callable[[Address], Any]
) -> None:
    store: MessageDbStore = opened(made("message-db"))
    store.connection.execute("select write_message(%s, 'order-1', 'Placed', null, null)", [str(uuid4())])
    store.append("order-1", placed(), 1)
    first, second = store.read("order-1")
    assert (first.metadata, data_of(second)) == (b"{}", placed()[0].data)
    with pytest.raises(UndecodablePayload, match="event 1 of stream 'order-1', type 'Placed'"):
        data_of(first)


# eventsourcing


@pytest.mark.parametrize("state", [b"\xff", b"", b"[" * 100_000, b'{"cents": 5}'])
def test_state_of_another_program_is_read_as_it_is_by_eventsourcing(
    state: bytes, made: Maker, opened: Callable[[Address], Any]
) -> None:
    store = opened(made("eventsourcing"))
    store.recorder.insert_events([StoredEvent("order-1", 1, "Placed", state)])
    store.append("order-1", placed(), 1)
    assert [event.data for event in store.read("order-1")] == [state, b'{"b":1,"a":2}']
    assert [event.data for event in store.read_all()] == [state, b'{"b":1,"a":2}']


def test_writers_of_eventsourcing_wait_for_each_other_and_those_of_our_table_do_not(
    made: Maker, opened: Callable[[Address], Any]
) -> None:
    theirs, ours = made("eventsourcing"), made("PostgreSQL")
    assert writes_beside_an_open_transaction(theirs, "stored_events", opened(theirs)) == "relation"
    assert writes_beside_an_open_transaction(ours, "events", opened(ours)) == "done"


def writes_beside_an_open_transaction(address: Address, table: str, store: EventStore) -> str:
    """Another writer has its row in, and has not committed: what an append to another stream does."""
    with ThreadPoolExecutor(1) as pool, connect(in_schema(address.endpoint.url, address.space)) as other:
        with other.transaction():
            # The lock that any insert takes until its transaction ends.
            other.execute(psycopg.sql.SQL("lock table {} in row exclusive mode").format(psycopg.sql.Identifier(table)))
            writing = pool.submit(store.append, "order-1", placed())
            seen = until("it to wait or to be done", lambda: waiting(address) or (writing.done() and "done"))
        writing.result(10)
    return str(seen)


def waiting(address: Address) -> str | None:
    """The kind of lock that a session in the store's database waits for."""
    url = address.endpoint.url
    database = address.space if address.kind == "message-db" else psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    query = (
        "select locktype from pg_locks join pg_stat_activity using (pid) where not granted and datname = %s"
        " and (relation is null or relation::regclass::text like %s)"
    )
    with connect(url) as connection:
        pattern = "%" if address.kind == "message-db" else f"{address.space}.%"
        row = connection.execute(query, [database, pattern]).fetchone()
    return str(row[0]) if row else None


# UmaDB


def test_umadb_s_condition_corrects_what_the_adapter_remembers(made: Maker, opened: Callable[[Address], Any]) -> None:
    address, stream = made("UmaDB"), f"order-{uuid4()}"
    first, second = opened(address), opened(address)
    first.append(stream, placed())
    second.append(stream, placed(2), 1)
    with pytest.raises(WrongExpectedVersion) as refused:
        first.append(stream, placed(), 1)
    assert (refused.value.actual, first.append(stream, placed())) == (3, 4)


# EventStoreDB and Axon Server, on fakes of their wire protocols


def test_kurrentdb_is_told_the_revision_that_the_writer_saw(kurrent: tuple[Any, KurrentStore]) -> None:
    fake, store = kurrent
    store.append("order-1", placed(), NO_STREAM)
    store.append("order-1", placed(3), 1)  # a batch has another call
    store.append("order-1", placed(), ANY)
    assert fake.requests == [("order-1", "no_stream"), ("order-1", "0"), ("order-1", "any")]
    assert [event.stream_revision for event in fake.log if event.stream_identifier.stream_name == b"order-1"] == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("count", [1, 2], ids=["one event", "a batch"])
def test_kurrentdb_s_refusals_become_ours(kurrent: tuple[Any, KurrentStore], count: int) -> None:
    _, store = kurrent
    store.append("order-1", placed())
    with pytest.raises(WrongExpectedVersion) as refused:
        store.append("order-1", [NewEvent("Paid", {})] * count, 7)
    assert (refused.value.expected, refused.value.actual) == (7, 1)
    store.delete("order-1", 1)
    with pytest.raises(StreamDeleted):
        store.append("order-1", placed(count))


def test_a_node_that_is_no_leader_is_not_taken_for_a_deleted_stream(
    kurrent: tuple[Any, KurrentStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = kurrent

    def refuse(*_: object, **__: object) -> int:
        raise NodeIsNotLeaderError("Leader info available")

    monkeypatch.setattr(store.client, "append_to_stream", refuse)
    with pytest.raises(FailedPreconditionError):
        store.append("order-1", placed())


def test_kurrentdb_s_own_streams_are_left_out_and_its_tombstones_are_not(kurrent: tuple[Any, KurrentStore]) -> None:
    fake, store = kurrent
    store.append("order-1", placed())
    store.set_metadata("order-1", StreamMetadata(custom={"owner": "ann"}))
    store.delete("order-1")
    first = store.read_all(limit=1)
    assert [event.type for event in [*first, *store.read_all(first[-1].place)]] == ["Placed", TOMBSTONE]
    assert [event.metadata["type"] for event in fake.log][::2] == ["$UsersInitialized", "$metadata"]


def test_axon_gets_sequence_numbers_from_zero_and_the_category_as_type(axon: tuple[Any, AxonStore]) -> None:
    fake, store = axon
    store.append("order-1", [NewEvent("Placed", {}, schema_version=3), *placed()])
    sent = [(e.aggregate_type, e.aggregate_sequence_number, e.payload.type, e.payload.revision) for e in fake.log]
    assert sent == [("order", 0, "Placed", "3"), ("order", 1, "Placed", "1")]


# The contract


class Careless(PostgresStore):
    """Ignores what the writer expects, as a store without expected versions would."""

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        return super().append(stream, events)


class Shuffled(PostgresStore):
    """Reads all by a page that skips its first event, as a reader by position may."""

    def read_all(self, after: Any = (0, 0), limit: int = 1000) -> Sequence[Recorded]:
        return super().read_all(after, limit + 1)[1:]


class Rewriting(PostgresStore):
    """Hands the JSON out in a form of its own, and does not say so."""

    rewrites: ClassVar[bool] = False

    def read(self, stream: str, **how: Any) -> Iterator[Recorded]:
        return (event._replace(data=event.data.replace(b":", b": ")) for event in super().read(stream, **how))


@pytest.mark.parametrize(
    ("wrong", "question"),
    [
        (Careless, questions.a_writer_that_missed_something_is_refused_with_both_versions),
        (Careless, questions.a_writer_that_expects_more_than_there_is_leaves_no_gap),
        (Careless, questions.an_append_whose_answer_was_lost_can_be_repeated),
        (Careless, questions.of_two_writers_at_once_one_must_lose),
        (Shuffled, questions.all_streams_are_read_in_one_order_page_by_page),
        (Rewriting, questions.what_is_read_is_what_was_appended),
    ],
)
def test_contract_catches_a_store_that_is_wrong(
    store: PostgresStore, schema: str, wrong: type[PostgresStore], question: Question
) -> None:
    with connect(schema) as one, connect(schema) as two:
        handles = iter([wrong(one), wrong(two)])
        with pytest.raises(ContractBroken):
            question(Subject(wrong(store.connection), lambda: next(handles), "order-1"))


def test_interview_says_which_questions_a_store_does_not_answer(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessageDbStore, "capabilities", MessageDbStore.capabilities | {Capability.BACKWARDS})
    problems = questions.interview(made("message-db"), "order")
    assert list(problems) == ["the_last_events_can_be_read_first"]
    assert "NotSupported: message-db has no read backwards" in problems["the_last_events_can_be_read_first"]
