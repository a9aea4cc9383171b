"""A seeded corruption of a generated good history is found by exactly the checkers that must find it.

The history is that of a log of records: written, sent, and read by one reader.
"""

from dataclasses import dataclass, replace
from itertools import count, groupby

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.checkers import Kind, check
from shared.history import Action, History, Op, Outcome

INVOKE, OK, FAIL, UNKNOWN = Outcome
WRITE, SEND, DELIVER, EFFECT, READ, FAULT = Action


@dataclass(frozen=True)
class Record:
    value: str
    key: str
    seq: int
    partition: int
    offset: int
    doubt: bool  # its writer died before it knew

    def op(self, action: Action, outcome: Outcome = OK, process: str = "", group: str = "") -> Op:
        placed = action in (SEND, DELIVER)
        partition, offset = (self.partition, self.offset) if placed else (-1, -1)
        topic = "orders" if placed else ""
        return Op(
            0, process or str(action), action, outcome, self.value, self.key, self.seq, topic, partition, offset,
            group=group,
        )  # fmt: skip


def plain(action: Action, value: str, outcome: Outcome = OK) -> Op:
    return Op(0, str(action), action, outcome, value)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Records of a few aggregates in a few partitions, with gaps where transactions had their markers."""
    partitions = draw(st.integers(1, 3))
    numbers = {key: count(1) for key in "abcd"}
    offsets = dict.fromkeys(range(partitions), 0)
    log = []
    for key in draw(st.lists(st.sampled_from("abcd"), min_size=4, max_size=16)):
        partition, seq = ord(key) % partitions, next(numbers[key])
        offsets[partition] += draw(st.sampled_from([1, 1, 1, 2]))
        log.append(Record(f"{key}-{seq}", key, seq, partition, offsets[partition], draw(st.booleans())))
    return log


def before(log: list[Record]) -> list[Op]:
    """All writes and sends, with a refused and a vanished write that nobody sent."""
    ops = [plain(WRITE, "refused", INVOKE), plain(WRITE, "refused", FAIL), plain(WRITE, "vanished", INVOKE)]
    for record in log:
        ops.append(record.op(WRITE, INVOKE))
        ops += [] if record.doubt else [record.op(WRITE)]
        ops.append(record.op(SEND))
    return ops


def read(log: list[Record], process: str = "reader") -> list[Op]:
    return [one for record in log for one in (record.op(DELIVER, process=process), record.op(EFFECT, process=process))]


def final(log: list[Record]) -> list[Op]:
    return [*(record.op(READ) for record in log), plain(READ, "")]


def found(log: list[Record], *reading: Op) -> set[Kind]:
    """The kinds that are found when the log is read so."""
    ops = enumerate((*before(log), *reading, *final(log)), 1)
    history = History(msgspec.structs.replace(op, at=number) for number, op in ops)
    return {kind for kind, anomalies in check(history).items() if anomalies}


def end(log: list[Record], value: str) -> Op:
    """A delivery of something after all else."""
    last = max(record.offset for record in log)
    return replace(log[-1], value=value, key=value, seq=1, offset=last + 1).op(DELIVER, process="reader")


def neighbours(log: list[Record], record: Record) -> tuple[bool, bool]:
    """Whether its partition has a record before it, and one after it."""
    offsets = [other.offset for other in log if other.partition == record.partition]
    return min(offsets) < record.offset, record.offset < max(offsets)


@given(logs())
def test_a_good_history_is_never_blamed(log: list[Record]) -> None:
    assert found(log, *read(log)) == set()
    assert found(log, *read(log), *read(log, "another reader")[::2]) == set()


@given(logs(), st.data())
def test_a_group_in_which_partitions_wander_is_never_blamed(log: list[Record], data: st.DataObject) -> None:
    names = st.sampled_from(["one", "two", "three"])
    assert found(log, *(record.op(DELIVER, process=data.draw(names), group="g") for record in log)) == set()


@given(logs(), st.data())
def test_a_dropped_delivery_is_lost_and_in_the_middle_also_skipped(log: list[Record], data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(log))
    expected = {Kind.LOST, Kind.SKIPPED} if all(neighbours(log, record)) else {Kind.LOST}
    assert found(log, *read([other for other in log if other is not record])) == expected


@given(logs(), st.data())
def test_an_offset_skipped_by_one_of_two_readers_is_skipped_and_not_lost(
    log: list[Record], data: st.DataObject
) -> None:
    record = data.draw(st.sampled_from(log))
    own = [other.op(DELIVER, process="hasty") for other in log if other is not record]
    assert found(log, *read(log), *own) == ({Kind.SKIPPED} if all(neighbours(log, record)) else set())


@given(logs(), st.data())
def test_a_record_published_twice_is_a_duplicate_delivery(log: list[Record], data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(log))
    again = replace(record, offset=max(other.offset for other in log) + 1)
    assert found(log, again.op(SEND), *read(log), again.op(DELIVER, process="reader")) == {Kind.DUPLICATE_DELIVERY}


@given(logs(), st.data())
def test_a_rewind_is_backwards_and_delivers_twice(log: list[Record], data: st.DataObject) -> None:
    upto = data.draw(st.integers(1, len(log)))
    again = data.draw(st.integers(0, upto - 1))
    partition = [record for record in log[:upto] if record.partition == log[again].partition and record in log[again:]]
    reading = [*read(log[:upto]), *(record.op(DELIVER, process="reader") for record in partition), *read(log[upto:])]
    assert found(log, *reading) == {Kind.DUPLICATE_DELIVERY, Kind.BACKWARDS}


@given(logs(), st.data())
def test_two_neighbours_taken_in_the_wrong_turn_are_backwards_and_skipped(
    log: list[Record], data: st.DataObject
) -> None:
    by_partition = [[r for r in log if r.partition == p] for p in {r.partition for r in log}]
    part = data.draw(st.sampled_from([part for part in by_partition if len(part) > 1] or [[]]))
    if not part:
        return
    place = data.draw(st.integers(0, len(part) - 2))
    turned = [*part[:place], part[place + 1], part[place], *part[place + 2 :]]
    rest = [record for record in log if record not in part]
    expected = {Kind.BACKWARDS} | ({Kind.SKIPPED} if len(part) > 2 else set())
    expected |= {Kind.REORDERED} if part[place].key == part[place + 1].key else set()
    assert found(log, *read(rest), *read(turned)) == expected


@given(logs(), st.data())
def test_events_published_in_the_wrong_order_are_reordered(log: list[Record], data: st.DataObject) -> None:
    ordered = sorted(log, key=lambda record: record.key)
    pairs = [(mine[0], mine[-1]) for _, group in groupby(ordered, lambda r: r.key) if len(mine := list(group)) > 1]
    if not pairs:
        return
    first, last = data.draw(st.sampled_from(pairs))
    turned = {first: replace(last, offset=first.offset), last: replace(first, offset=last.offset)}
    changed = [turned.get(record, record) for record in log]
    assert found(changed, *read(changed)) == {Kind.REORDERED}


@given(logs())
def test_a_delivery_of_a_refused_write_is_an_aborted_read(log: list[Record]) -> None:
    assert found(log, *read(log), end(log, "refused")) == {Kind.ABORTED_READ}


@given(logs(), st.sampled_from(["vanished", "invented"]))
def test_a_delivery_of_what_is_not_in_the_database_is_a_phantom(log: list[Record], value: str) -> None:
    assert found(log, *read(log), end(log, value)) == {Kind.PHANTOM}


@given(logs(), st.data())
def test_a_repeated_effect_is_a_duplicate_effect(log: list[Record], data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(log))
    assert found(log, *read(log), record.op(EFFECT, process="another")) == {Kind.DUPLICATE_EFFECT}
