"""Reading by snapshot windows: against a model, on generated schedules of transactions; and its corners, one by one."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from itertools import chain, islice
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from outbox.relay.message import COLUMNS, Row
from outbox.relay.reading import Place, Reader
from outbox.stage.counter import Numbered, Services, open_orders
from outbox.table import TABLE, create

from shared import home
from shared.postgres import Connection, connect
from shared.snapshot import Snapshot

ORDERS = ["order-1", "order-2"]
SESSIONS = 3
BATCH, LIMIT = 1, 2  # so small that windows stay open over steps
PAIR = f"""
select {COLUMNS} from outbox where (xid, position) > (%s::text::xid8, %s)
and xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid, position limit %s
"""  # noqa: S608


class Do(StrEnum):
    """One step of a schedule."""

    WRITE = "write"
    LOCK = "lock"
    INSERT = "insert"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    READ = "read a page or more"
    NOTE = "note how far"
    RESTART = "begin at the last note"


Step = tuple[Do, int, str]
OFTEN = [*Do, Do.WRITE, *[Do.INSERT] * 6, *[Do.COMMIT] * 2, *[Do.READ] * 2]
STEPS = st.tuples(st.sampled_from(OFTEN), st.integers(0, SESSIONS - 1), st.sampled_from(ORDERS))
SCHEDULES = st.lists(STEPS, min_size=30, max_size=80)


class Pairs:
    """WRONG: the order of (xid, position), behind the oldest open transaction."""

    def __init__(self, connection: Connection, place: tuple[str, int] = ("0", 0), batch: int = BATCH) -> None:
        self.connection, self.place, self.batch = connection, place, batch

    def pages(self, limit: int) -> Iterator[list[Row]]:
        if rows := self.connection.execute(PAIR, [*self.place, limit]).fetchall():
            self.place = rows[-1][1], rows[-1][0]
            yield rows

    def abandon(self) -> None:
        """It reads no stream."""


class Reading:
    """A reader under a schedule, and what it has read: `read` up to its place, `seen` with what came again."""

    def __init__(self, make: Callable[[Any], Any], start: Any) -> None:
        self.make, self.reader, self.noted = make, make(start), (start, 0)
        self.read: list[Numbered] = []
        self.seen: list[Numbered] = []

    def take(self, do: Do, pages: int) -> list[Numbered]:
        """What a step has read."""
        if do is Do.NOTE:
            self.noted = self.reader.place, len(self.read)
        elif do is Do.RESTART:
            place, count = self.noted
            self.reader, self.read = self.make(place), self.read[:count]
        elif do is Do.READ:
            return self._more(pages)
        return []

    def rest(self) -> list[Numbered]:
        """What is left: of the window that is open, and of one more."""
        found: list[Numbered] = []
        while more := self._more(LIMIT) or self._more(LIMIT):
            found += more
        return found

    def _more(self, pages: int) -> list[Numbered]:
        rows = chain.from_iterable(islice(self.reader.pages(LIMIT), pages))
        found = [(row[3], int(row[8])) for row in rows]
        self.reader.abandon()
        self.read += found
        self.seen += found
        return found


def windows(connection: Connection) -> Reading:
    """A reader of its own session, which goes on from its place as it is written down."""

    def make(place: Place) -> Reader:
        current = Snapshot.parse(str(place.current)) if place.current else None
        return Reader(connection, replace(place, previous=Snapshot.parse(str(place.previous)), current=current), BATCH)

    return Reading(make, Place())


def pairs(connection: Connection) -> Reading:
    return Reading(lambda place: Pairs(connection, place), ("0", 0))


def take(services: Services, do: Do, who: int, order: str) -> None:
    """A step of a service; those of the reader are none."""
    if do in (Do.LOCK, Do.INSERT):
        getattr(services, do)(who, order)
    elif do in (Do.WRITE, Do.COMMIT, Do.ROLLBACK):
        getattr(services, do)(who)


def strangers(services: Services, reading: Reading, schedule: list[Step]) -> list[Numbered]:
    """Take the schedule, and read the rest; returns what was read, and was not committed."""
    services.anew()
    found: list[Numbered] = []
    for do, number, order in schedule:
        take(services, do, number, order)
        found += [one for one in reading.take(do, number + 1) if one not in services.committed]
    return found + [one for one in reading.rest() if one not in services.committed]


def out_of_order(reading: Reading) -> list[Numbered]:
    """What came, for the first time, after a later event of its order."""
    first = list(dict.fromkeys(reading.seen))
    return [one for place, one in enumerate(first) if any(one[0] == order and one[1] < n for order, n in first[:place])]


@pytest.fixture
def reader_session(schema: str) -> Iterator[Connection]:
    create(schema)
    with connect(schema) as connection:
        open_orders(connection, ORDERS)
        yield connection


@pytest.fixture
def services(schema: str, reader_session: Connection) -> Iterator[Services]:
    with ExitStack() as opened:
        yield Services([opened.enter_context(connect(schema)) for _ in range(SESSIONS)])


in_one_schema = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},
)


@in_one_schema
@given(SCHEDULES)
def test_every_committed_row_is_read_once_in_the_order_of_its_aggregate(
    services: Services, reader_session: Connection, schedule: list[Step]
) -> None:
    """While transactions are open that will never end: nobody is waited for."""
    reading = windows(reader_session)
    assert strangers(services, reading, schedule) == []
    assert sorted(reading.read) == sorted(services.committed)
    assert out_of_order(reading) == []


def test_under_the_same_schedules_the_pair_is_out_of_order(services: Services, reader_session: Connection) -> None:
    def fails(schedule: list[Step]) -> bool:
        reading = pairs(reader_session)
        strangers(services, reading, schedule)
        for who in list(services.open):  # it waits for them
            services.commit(who)
        reading.rest()
        return bool(out_of_order(reading))

    budget = settings(max_examples=1_000, derandomize=True, database=None, phases=[Phase.generate])
    schedule = find(SCHEDULES, fails, settings=budget)
    reading = windows(reader_session)
    assert strangers(services, reading, schedule) == []
    assert out_of_order(reading) == []


@pytest.fixture
def reader(reader_session: Connection) -> Reader:
    return Reader(reader_session, Place(), BATCH)


def commit(services: Services, who: int, *orders: str) -> None:
    services.insert(who, *orders)
    services.commit(who)


def positions(reader: Reader, limit: int = 100) -> list[int]:
    return [row[0] for page in reader.pages(limit) for row in page]


ONE, TWO = ORDERS


def test_a_row_below_what_was_passed_is_read_when_it_commits(services: Services, reader: Reader) -> None:
    services.insert(0, ONE)
    commit(services, 1, TWO)
    assert positions(reader) == [2]
    services.commit(0)
    assert positions(reader) == [1]
    assert reader.place.passed == 2


def test_nor_is_one_missed_of_a_transaction_above_the_newest_that_has_ended(services: Services, reader: Reader) -> None:
    """Postgres' snapshot does not list it."""
    services.write(1)
    services.insert(0, ONE)
    commit(services, 1, TWO)
    assert positions(reader) == [2]
    services.commit(0)
    assert positions(reader) == [1]


def test_a_limit_reached_among_late_rows_leaves_the_window_open(services: Services, reader: Reader) -> None:
    services.insert(0, ONE, ONE, ONE)
    commit(services, 1, TWO)
    assert positions(reader) == [4]
    services.commit(0)
    commit(services, 1, TWO)
    assert [positions(reader, 2) for _ in range(3)] == [[1, 2], [3, 5], []]
    assert reader.place.current is None


def test_a_window_is_resumed_midway_with_what_it_has_and_no_more(services: Services, reader: Reader) -> None:
    commit(services, 0, ONE, ONE, ONE)
    assert positions(reader, 2) == [1, 2]
    commit(services, 1, TWO)
    resumed = Reader(reader.connection, reader.place, BATCH)
    assert [positions(resumed) for _ in range(3)] == [[3], [4], []]


def test_a_window_whose_rows_are_gone_ends(services: Services, reader: Reader) -> None:
    commit(services, 0, ONE, ONE, ONE)
    assert positions(reader, 1) == [1]
    services.sessions[0].execute("delete from outbox")
    assert positions(reader) == []
    assert reader.place.current is None


def test_abandoned_in_the_middle_it_goes_on_in_the_same_session(services: Services, reader: Reader) -> None:
    commit(services, 0, *[ONE] * 20)
    next(reader.pages(100))
    reader.abandon()
    assert reader.connection.execute("select 1").fetchone() == (1,)
    assert positions(reader) == list(range(2, 21))


def test_a_place_that_has_forgotten_what_it_passed_reads_nothing_again(services: Services, reader: Reader) -> None:
    """As after an adoption."""
    commit(services, 0, ONE, ONE)
    services.insert(1, TWO)
    assert positions(reader) == [1, 2]
    services.commit(1)
    assert positions(Reader(reader.connection, replace(reader.place, passed=0), BATCH)) == [3]


def looked_at(connection: Connection) -> int:
    """Rows, and entries of indexes, that Postgres has looked at in the outbox, as it counts."""
    connection.execute("select pg_stat_force_next_flush()")
    query = """
    select (select sum(seq_tup_read) from pg_stat_user_tables where relid in (select relid from tree))
         + (select sum(idx_tup_read) from pg_stat_user_indexes where relid in (select relid from tree))
    from (values (1)) as one
    """
    row = connection.execute(f"with tree as (select relid from pg_partition_tree('outbox')) {query}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def test_while_a_transaction_is_open_nothing_that_came_since_is_looked_at_again(
    services: Services, reader: Reader
) -> None:
    services.insert(0, ONE)
    many = "insert into outbox (aggregate_type) select 'orders' from generate_series(1, 10000)"
    services.sessions[1].execute(many)
    assert len(positions(reader, 20_000)) == 10_000
    for session in services.sessions[1:]:  # what they have looked at is counted now, and not later
        session.execute("select pg_stat_force_next_flush()")
    before = looked_at(reader.connection)
    for who in (1, 2, 1, 2):  # each poll is of a new window
        services.write(who)
        services.commit(who)
        assert positions(reader) == []
    assert looked_at(reader.connection) - before == 0
    services.commit(0)
    assert positions(reader) == [1]


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_poll_of_a_table_that_has_just_grown_is_a_look_at_few_pages(
    services: Services, reader: Reader, ended: bool
) -> None:
    """Also when a transaction has ended at last. The planner knows nothing of the table yet."""
    services.insert(0, ONE)
    services.sessions[1].execute("insert into outbox (aggregate_type) select 'orders' from generate_series(1, 10000)")
    assert len(positions(reader, 20_000)) == 10_000
    services.write(1)
    services.commit(1)
    if ended:
        services.commit(0)
    assert 0 < pages_looked_at(reader) < 30


def pages_looked_at(reader: Reader) -> int:
    """How many of the shared buffers' pages the next window takes."""
    reader.place = reader.place.opened(home.snapshot(reader.connection, TABLE))
    total = 0
    for query, values in reader._queries():
        values_here = [reader.place.current, reader.place.previous, 10_000, *values]
        explain = b"explain (analyze, buffers, format json) " + query
        answer = reader.connection.pgconn.exec_params(explain, [str(value).encode() for value in values_here])
        [explained] = json.loads(answer.get_value(0, 0) or b"[]")
        total += explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    return total
