"""The questions of the contract (contract.py), in the order in which they are asked."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from sourcing.errors import (
    SourcingError,
    StreamDeleted,
    WrongExpectedVersion,
)
from sourcing.event import Metadata, NewEvent, Recorded, data_of, encode, metadata_of
from sourcing.stage.content import ON_CONTENT
from sourcing.stage.contract import (
    PATIENCE,
    QUESTIONS,
    Question,
    Subject,
    ask,
    asks,
    end_of,
    ensure,
    events,
    numbers,
    raises,
    subjects,
)
from sourcing.store import NO_STREAM, Capability, EventStore, StreamMetadata
from sourcing.stores import Address


def interview(address: Address, unused: str) -> dict[str, str]:
    """Ask everything, of streams whose names begin with `unused`; returns which were not answered well, and why."""
    problems = {}
    with subjects(address) as subject:
        for number, question in enumerate(ALL_QUESTIONS):
            try:
                ask(question, subject(f"{unused}-{number}"))
            except Exception as error:  # whatever a client may raise: it is what the caller wants to know
                problems[question.__name__] = f"{type(error).__name__}: {error}"
    return problems


@asks()
def what_is_read_is_what_was_appended(subject: Subject) -> None:
    audit = Metadata(correlation_id="c-1", actor="ann", reason='she said "yes"')
    new = [NewEvent("Placed", {"b": 1, "a": [1.5, None, "ä€\n"], "": {}}, 3, audit), NewEvent("Paid", {"cents": -1})]
    subject.store.append(subject.stream, new)
    found = list(subject.store.read(subject.stream))
    seen = [(event.stream, event.type, event.schema_version, event.id, data_of(event)) for event in found]
    given = [(subject.stream, event.type, event.schema_version, event.id, event.data) for event in new]
    ensure(seen == given, f"it read {seen} and not {given}")
    ensure([metadata_of(event) for event in found] == [event.metadata for event in new], "the metadata has changed")
    if not getattr(subject.store, "rewrites", False):  # declared: it keeps the meaning of JSON and not its bytes
        given_bytes = [encode(subject.stream, event) for event in new]
        ensure([(event.data, event.metadata) for event in found] == given_bytes, "the bytes have changed")


@asks()
def versions_count_from_one_within_each_stream(subject: Subject) -> None:
    store, other = subject.store, subject.other("b")
    for stream, count in ((subject.stream, 2), (other, 1), (subject.stream, 1)):
        store.append(stream, events(count))
    found = [[event.version for event in store.read(stream)] for stream in (subject.stream, other)]
    ensure(found == [[1, 2, 3], [1]], f"the versions are {found}")


@asks()
def events_after_a_version_and_no_more_than_asked_for(subject: Subject) -> None:
    store = subject.store
    store.append(subject.stream, events(5))
    found = [numbers(store.read(subject.stream, after=2)), numbers(store.read(subject.stream, after=1, limit=2))]
    ensure(found == [[3, 4, 5], [2, 3]], f"it read {found}")
    ensure(not list(store.read(subject.stream, after=5)), "it read beyond the end")


@asks()
def a_stream_that_nobody_wrote_reads_as_empty(subject: Subject) -> None:
    ensure(not list(subject.store.read(subject.stream)), "there is something in it")


@asks(Capability.EXPECTED_VERSION)
def an_append_says_the_new_version_and_expects_the_old_one(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    seen = [store.append(stream, events(2), NO_STREAM), store.append(stream, events(1, 3), 2)]
    seen.append(store.append(stream, events(1, 4)))
    ensure(seen == [2, 3, 4], f"the versions are {seen}")
    ensure(numbers(store.read(stream)) == [1, 2, 3, 4], "they are not there in order")


@asks(Capability.EXPECTED_VERSION)
def a_writer_that_missed_something_is_refused_with_both_versions(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    store.append(stream, events(3), NO_STREAM)
    for stale in (NO_STREAM, 1, 2):
        with raises(WrongExpectedVersion, stream=stream, expected=stale, actual=3):
            store.append(stream, events(2, 90), stale)
    ensure(numbers(store.read(stream)) == [1, 2, 3], "something of it was written")


@asks(Capability.EXPECTED_VERSION)
def a_writer_that_expects_more_than_there_is_leaves_no_gap(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    with raises(WrongExpectedVersion, expected=1, actual=0):
        store.append(stream, events(1), 1)
    store.append(stream, events(1))
    with raises(WrongExpectedVersion, expected=5, actual=1):
        store.append(stream, events(1), 5)


@asks(Capability.EXPECTED_VERSION)
def an_append_whose_answer_was_lost_can_be_repeated(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    first, second = events(2), events(1, 3)
    store.append(stream, first, NO_STREAM)
    store.append(stream, second, 2)
    again = [store.append(stream, first, NO_STREAM), subject.open().append(stream, second, 2)]
    ensure(again == [2, 3], f"the repeats say {again}")
    ensure(numbers(store.read(stream)) == [1, 2, 3], "something is there twice")


@asks(Capability.EXPECTED_VERSION)
def of_two_writers_at_once_one_must_lose(subject: Subject) -> None:
    handles, rounds = [subject.open(), subject.open()], 5
    start = threading.Barrier(2)

    def write(writer: int, version: int) -> bool:
        start.wait(PATIENCE)
        try:
            handles[writer].append(subject.stream, [NewEvent("Won", {"n": writer})], version)
        except WrongExpectedVersion:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for version in range(rounds):
            won = list(pool.map(write, (0, 1), (version, version)))
            ensure(sum(won) == 1, f"{sum(won)} of two writers wrote version {version + 1}")
    ensure(len(list(subject.store.read(subject.stream))) == rounds, "what was refused is there all the same")


@asks(Capability.BACKWARDS)
def the_last_events_can_be_read_first(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    store.append(stream, events(4))
    found = [numbers(store.read(stream, backwards=True)), numbers(store.read(stream, backwards=True, limit=1))]
    found.append(numbers(store.read(stream, backwards=True, after=2)))
    ensure(found == [[4, 3, 2, 1], [4], [4, 3]], f"it read {found}")


@asks(Capability.READ_ALL)
def all_streams_are_read_in_one_order_page_by_page(subject: Subject) -> None:
    store, streams = subject.store, [subject.stream, subject.other("b"), subject.other("c")]
    start, written = end_of(store), []
    for number in range(7):
        new = events(1 + number % 2, 10 * number)
        store.append(streams[number % 3], new)
        written += [event.id for event in new]
    for size in (1, 4, 1000):
        after, found = start, list[Recorded]()
        while page := store.read_all(after, size):
            ensure(len(page) <= size, f"a page of {len(page)}")
            found += page
            after = page[-1].place
        ensure([event.id for event in found if event.stream in streams] == written, f"in pages of {size}, others")
        ensure([event.place for event in found] == sorted({event.place for event in found}), "places go back")


@asks(Capability.SUBSCRIBE)
def a_subscription_catches_up_and_goes_on_until_it_is_stopped(subject: Subject) -> None:
    store, got, stop = subject.store, queue.Queue[int](), threading.Event()
    start = end_of(store)
    store.append(subject.stream, events(2))

    def follow(follower: EventStore) -> None:
        for event in follower.subscribe(start, stop):
            if event.stream == subject.stream:
                got.put(data_of(event)["n"])

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow, subject.open())
        try:
            seen = [got.get(timeout=PATIENCE), got.get(timeout=PATIENCE)]
            store.append(subject.stream, events(1, 3))
            seen.append(got.get(timeout=PATIENCE))
        finally:
            stop.set()
        following.result(PATIENCE)
    ensure(seen == [1, 2, 3], f"it got {seen}")


@asks(Capability.METADATA)
def a_stream_has_metadata_that_may_hide_its_first_events(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    ensure(store.metadata(stream) == StreamMetadata(), "there is some before any was set")
    store.append(stream, events(4))
    store.set_metadata(stream, StreamMetadata(3, {"owner": "ann"}))
    ensure(store.metadata(stream) == StreamMetadata(3, {"owner": "ann"}), f"it is {store.metadata(stream)}")
    ensure(numbers(store.read(stream)) == [3, 4], "the events below the truncation are read")
    ensure(store.append(stream, events(1, 5), 4) == 5, "the versions do not go on")


@asks(Capability.DELETE)
def a_deleted_stream_reads_as_empty_and_its_name_is_never_used_again(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    store.append(stream, events(2))
    with raises(WrongExpectedVersion, expected=1):
        store.delete(stream, 1)
    store.delete(stream, 2)
    ensure(not list(store.read(stream)), "its events are read")
    for expected in (-1, 3):
        with raises(StreamDeleted, stream=stream):
            store.append(stream, events(1), expected)


@asks(Capability.TRUNCATE)
def scavenging_removes_what_is_hidden_and_only_that(subject: Subject) -> None:
    store, deleted = subject.store, subject.other("deleted")
    store.scavenge()
    store.append(subject.stream, events(4))
    store.set_metadata(subject.stream, StreamMetadata(3))
    store.append(deleted, events(2))
    store.delete(deleted)
    ensure((gone := store.scavenge()) == 4, f"{gone} events went, and not 4")
    ensure((numbers(store.read(subject.stream)), store.scavenge()) == ([3, 4], 0), "it took what is read")
    with raises(StreamDeleted):
        store.append(deleted, events(1))


@asks(Capability.TRANSACTION)
def an_append_is_a_part_of_the_caller_s_transaction(subject: Subject) -> None:
    store, stream = subject.store, subject.stream
    connection: Any = getattr(store, "connection", None)
    with connection.transaction():
        store.append(stream, events(2))
        raise psycopg.Rollback
    ensure(not list(store.read(stream)), "it was rolled back, and is there")
    with connection.transaction():
        store.append(stream, events(1), NO_STREAM)
        with raises(SourcingError):
            store.append(stream, events(1, 7), NO_STREAM)
        store.append(stream, events(1, 2), 1)
        with raises(SourcingError):
            store.append(stream, events(1, 8), 1)
        store.append(stream, events(1, 3), 2)
    ensure(numbers(subject.open().read(stream)) == [1, 2, 3], "a refused append spoilt the transaction around it")


ALL_QUESTIONS: tuple[Question, ...] = tuple(dict.fromkeys((*ON_CONTENT, *QUESTIONS)))
