"""What each way of reading on passes over, step by step; who holds readers back; and the writers of the experiment."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sourcing.errors import TransactionTooOld, WrongExpectedVersion
from sourcing.event import NewEvent, Recorded
from sourcing.holdback import HoldingBack, oldest_writer
from sourcing.postgres import PostgresStore
from sourcing.stage import readers
from sourcing.stage.bank import Bank
from sourcing.stage.readers import NOTES, Query, Reader, by_xid_and_position, follow, write_unevenly
from sourcing.store import ANY, NO_STREAM
from sourcing.windowed import BEGIN, read_window
from sourcing.wrong.positions import behind_open_transactions, by_position

from shared.checkers import check
from shared.history import History
from shared.postgres import Connection, connect
from shared.wait import until
from shared.worker import Worker

TUTORIAL = Query("position > last", "tutorial", by_position)
HALF = Query("position > last, behind open transactions", "half-fix", behind_open_transactions)
PAIR = Query("(xid, position) > last", "pair", by_xid_and_position)
WINDOWS = Query("snapshot windows", "windows", read_window, BEGIN)
ALL = TUTORIAL, HALF, PAIR, WINDOWS


class Writer:
    """A transaction taken step by step, with a stream of its own."""

    def __init__(self, conninfo: str, name: str) -> None:
        self.store = PostgresStore(connect(conninfo))
        self.stream = f"account-{name}"
        self.store.connection.execute("begin")

    def note(self) -> None:
        """Draws the xid."""
        self.store.connection.execute("insert into notes values ('something else')")

    def append(self, stream: str = "", expected: int = ANY) -> None:
        """Draws the position."""
        self.store.append(stream or self.stream, [NewEvent("Deposited", {"cents": 1})], expected)

    def commit(self) -> None:
        self.store.connection.execute("commit")


@pytest.fixture
def begin(store: PostgresStore, schema: str) -> Iterator[Callable[[str], Writer]]:
    store.connection.execute(NOTES)
    with ExitStack() as opened:

        def begin(name: str) -> Writer:
            writer = Writer(schema, name)
            opened.callback(writer.store.close)
            return writer

        yield begin


Reading = dict[Query, tuple[Reader, list[Recorded]]]


@pytest.fixture
def reading(store: PostgresStore) -> Reading:
    """Every way's reader, and what it has seen."""
    seen: dict[Query, list[Recorded]] = {query: [] for query in ALL}
    return {query: (Reader(store.connection, query, seen[query].append), seen[query]) for query in ALL}


def missed(reading: Reading, *streams: str) -> set[Query]:
    """The ways that have not seen these streams' events once, now that every transaction has ended."""
    for reader, _ in reading.values():
        reader.finish()
    return {way for way, (_, seen) in reading.items() if sorted(event.stream for event in seen) != sorted(streams)}


def step(reading: Reading) -> None:
    for reader, _ in reading.values():
        reader.step()


def test_a_lower_position_that_commits_later_is_missed_by_the_tutorial_only(
    begin: Callable[[str], Writer], reading: Reading
) -> None:
    early, late = begin("early"), begin("late")
    early.append()  # position 1
    late.append()  # position 2
    late.commit()
    step(reading)
    early.commit()
    assert missed(reading, early.stream, late.stream) == {TUTORIAL}


def test_a_lower_position_of_a_later_transaction_is_missed_by_the_half_fix_too(
    begin: Callable[[str], Writer], reading: Reading
) -> None:
    older, younger = begin("older"), begin("younger")
    older.note()  # the lower xid
    younger.append()  # position 1
    older.append()  # position 2
    older.commit()
    step(reading)
    younger.commit()
    assert missed(reading, older.stream, younger.stream) == {TUTORIAL, HALF}


def test_the_pair_waits_for_the_oldest_transaction_that_has_written(
    begin: Callable[[str], Writer], reading: Reading
) -> None:
    early, late = begin("early"), begin("late")
    early.note()
    late.append()
    late.commit()
    reader, seen = reading[PAIR]
    assert reader.step() == 0
    early.commit()
    reader.finish()
    assert [event.stream for event in seen] == [late.stream]


def test_a_rolled_back_append_leaves_a_gap_that_the_pair_does_not_wait_for(
    begin: Callable[[str], Writer], reading: Reading
) -> None:
    undone, done = begin("undone"), begin("done")
    undone.append()
    done.append()
    done.commit()
    undone.store.connection.execute("rollback")
    assert PAIR not in missed(reading, done.stream)
    assert [event.position for event in reading[PAIR][1]] == [2]


# Within a stream.


def test_a_transaction_with_an_older_xid_than_the_stream_must_not_append_to_it(
    begin: Callable[[str], Writer], reading: Reading
) -> None:
    """Its event would have the later version and be read before the earlier one."""
    older, younger = begin("older"), begin("younger")
    older.note()  # the lower xid
    younger.append("account-1")
    younger.commit()
    for expected in (ANY, 1):
        with pytest.raises(TransactionTooOld, match="'account-1' was written by a newer transaction"):
            older.append("account-1", expected)
    older.append("account-2")  # the transaction is usable
    older.commit()
    assert missed(reading, "account-1", "account-2") == set()


def test_an_old_snapshot_does_not_try_for_ever(begin: Callable[[str], Writer], store: PostgresStore) -> None:
    older = begin("older")
    older.store.connection.execute("set transaction isolation level repeatable read")
    older.note()
    store.append("account-1", [NewEvent("Deposited", {"cents": 1})])
    with pytest.raises(TransactionTooOld):
        older.append("account-1")


def test_a_conflict_in_an_old_transaction_is_still_a_conflict(begin: Callable[[str], Writer]) -> None:
    older, younger = begin("older"), begin("younger")
    older.note()
    younger.append("account-1")
    younger.commit()
    for expected in (NO_STREAM, 7):
        with pytest.raises(WrongExpectedVersion, match=f"expected version {expected}, it is at 1"):
            older.append("account-1", expected)


# The alarm.


def test_the_alarm_names_the_oldest_transaction_that_has_written(
    begin: Callable[[str], Writer], connection: Connection
) -> None:
    culprit, reading, second = begin("culprit"), begin("reading"), begin("second")
    reading.store.connection.execute("select count(*) from events")
    culprit.store.connection.execute("set application_name = 'nightly-report'")
    culprit.note()
    second.note()
    pid = culprit.store.connection.info.backend_pid

    def named() -> HoldingBack | None:  # the server has other users, whose short transactions may be older
        found = oldest_writer(connection)
        return found if found and found.pid == pid else None

    found = until("the culprit to be named", named)
    assert (found.application, found.state) == ("nightly-report", "idle in transaction")
    assert found.seconds > 0


# The experiment's processes.


@pytest.mark.parametrize("query", [PAIR, WINDOWS])
def test_uneven_writers_leave_what_their_history_says_and_it_is_read(
    store: PostgresStore, schema: str, tmp_path: Path, query: Query
) -> None:
    store.connection.execute(NOTES)
    bank = Bank(schema, tmp_path / "history.jsonl", seed=1, count=30, accounts=4)
    reader = Worker("reader", tmp_path / "reader.log", follow, bank, query).start()
    writers = [Worker("w", tmp_path / "writer.log", write_unevenly, bank, n, 0.001).start() for n in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    until("the reader to read", lambda: History.read(bank.history).delivered)  # from then on it ends by itself
    reader.stop()
    history = History.read(bank.history)
    assert history.committed == {event.id for event in store.read_all()}
    assert len(history.committed | history.aborted) == 120 > len(history.committed)
    assert not any(check(history).values())
    assert query == PAIR or readers.too_early(history, readers.causes(schema)) == 0
