"""The questions of the contract (contract.py) on what may be written, and on what others have written."""

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sourcing.errors import (
    EventIdNotAllowed,
    EventTooLarge,
    StreamNameNotAllowed,
    UndecodablePayload,
    UnwritableEvent,
)
from sourcing.event import MAX_BYTES, START, NewEvent, data_of
from sourcing.stage.contract import (
    QUESTIONS,
    Question,
    Subject,
    asks,
    end_of,
    ensure,
    events,
    numbers,
    raises,
)
from sourcing.store import NO_STREAM, Capability
from sourcing.stores import foreign


@asks()
def names_that_not_every_store_takes_are_refused(subject: Subject) -> None:
    for name in ("", "$order-1", "order 1", "ordér-1", "order-\n", "o" * 201):
        with raises(StreamNameNotAllowed, stream=name):
            subject.store.append(name, events(1))


@asks()
def an_event_above_the_limit_is_refused_and_nothing_is_written(subject: Subject) -> None:
    with raises(EventTooLarge, stream=subject.stream, limit=MAX_BYTES):
        subject.store.append(subject.stream, [*events(1), NewEvent("Huge", {"x": "y" * MAX_BYTES})])
    ensure(not list(subject.store.read(subject.stream)), "the events beside it were written")


@asks()
def an_event_of_the_limit_s_size_comes_back_whole(subject: Subject) -> None:
    text = "x" * (MAX_BYTES - len(b'{"x":""}') - len(b"{}"))
    subject.store.append(subject.stream, [NewEvent("Large", {"x": text})])
    [found] = subject.store.read(subject.stream)
    ensure(data_of(found) == {"x": text}, "it has changed")


@asks()
def what_json_cannot_say_is_refused_and_so_is_nothing_at_all(subject: Subject) -> None:
    with raises(TypeError):
        subject.store.append(subject.stream, [NewEvent("Odd", {"x": object()})])
    with raises(ValueError):
        subject.store.append(subject.stream, [])
    ensure(not list(subject.store.read(subject.stream)), "something was written")


@asks(Capability.EXPECTED_VERSION)
def a_repeated_append_is_known_by_its_ids_in_whatever_spelling(subject: Subject) -> None:
    store, stream, new = subject.store, subject.stream, events(2)
    store.append(stream, [replace(event, id=event.id.upper()) for event in new], NO_STREAM)
    for spelling in (str.upper, lambda ident: ident.replace("-", ""), "{{{}}}".format, "urn:uuid:{}".format):
        again = [replace(event, id=spelling(event.id)) for event in new]
        ensure(store.append(stream, again, NO_STREAM) == 2, f"an append of {again[0].id} is not known again")
    found = [event.id for event in store.read(stream)]
    ensure(found == [event.id for event in new], f"the ids are {found}")


@asks()
def an_id_that_is_no_uuid_is_refused(subject: Subject) -> None:
    for ident in ("", "order-1", "0" * 31, "g" * 32):
        with raises(EventIdNotAllowed, stream=subject.stream, id=ident):
            subject.store.append(subject.stream, [*events(1), NewEvent("Placed", {}, id=ident)])
    ensure(not list(subject.store.read(subject.stream)), "the events beside it were written")


@asks()
def what_nobody_can_read_is_not_written(subject: Subject) -> None:
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    for value in (math.nan, -math.inf, Decimal("10.50"), (1, 2), {1: "x"}, "\ud83d", deep):
        with raises(UnwritableEvent, stream=subject.stream, type="Odd"):
            subject.store.append(subject.stream, [*events(1), NewEvent("Odd", {"x": value})])
    ensure(not list(subject.store.read(subject.stream)), "the events beside it were written")


@asks()
def what_another_program_wrote_names_itself_and_hides_nothing(subject: Subject) -> None:
    store, stream, all_can_be_read = subject.store, subject.stream, Capability.READ_ALL in subject.store.capabilities
    start = end_of(store) if all_can_be_read else START
    store.append(stream, events(1))
    taken = sum(foreign.append(store, stream, data) for data in foreign.UNREADABLE)
    store.append(stream, events(1, 2))
    readings = [list(store.read(stream))]
    if all_can_be_read:
        readings.append([event for event in store.read_all(start) if event.stream == stream])
    for first, *between, last in readings:
        ensure(
            numbers([first, last]) == [1, 2] and len(between) == taken > 0, f"of {taken} events it read {len(between)}"
        )
        for event in between:
            with raises(UndecodablePayload, stream=stream, version=event.version, type=foreign.TYPE):
                data_of(event)


ON_CONTENT: tuple[Question, ...] = tuple(QUESTIONS)
