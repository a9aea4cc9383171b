"""A conflict is a conflict, whatever isolation level a role or a database makes the default."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
from sourcing import snapshots
from sourcing.errors import TransactionTooOld
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import EveryEvents, PostgresSnapshots
from sourcing.store import NO_STREAM

from shared.postgres import Connection

DEPOSITED = NewEvent("Deposited", {"cents": 5})
LEVELS = "read committed", "repeatable read", "serializable"
Session = Callable[[], Connection]


@pytest.fixture(params=LEVELS)
def session(request: pytest.FixtureRequest, schema: str, store: PostgresStore) -> Session:
    """A function that opens a session as another program may hand it over, with the isolation level as its default."""
    store.connection.execute(snapshots.SCHEMA.read_text())

    def opened() -> Connection:
        connection = psycopg.connect(schema, autocommit=True)
        connection.execute("select set_config('default_transaction_isolation', %s, false)", [request.param])
        return connection

    return opened


def test_commands_of_eight_writers_all_succeed(session: Session, store: PostgresStore) -> None:
    Repository(store, Account).execute("0", lambda account: account.open("ann"))

    def deposit(_: int) -> int:
        with session() as connection:
            kept = PostgresSnapshots(connection, EveryEvents(3))
            accounts = Repository(PostgresStore(connection), Account, snapshots=kept)
            for _ in range(15):
                accounts.execute("0", lambda account: account.deposit(1))
            return accounts.conflicts

    with ThreadPoolExecutor(8) as pool:
        conflicts = sum(pool.map(deposit, range(8)))
    assert (Repository(store, Account).load("0").balance, conflicts > 0) == (120, True)


def test_appends_under_any_version_all_get_in(session: Session, store: PostgresStore) -> None:
    def append(_: int) -> None:
        with session() as connection:
            for number in range(15):
                PostgresStore(connection).append("account-1", [NewEvent("Deposited", {"cents": number})])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(8)))
    assert [event.version for event in store.read("account-1")] == list(range(1, 121))


def test_a_store_is_opened_beside_writers(session: Session, store: PostgresStore) -> None:
    """A session's first look at where the table is at home reads what the others write."""

    def open_and_append(writer: int) -> None:
        with session() as connection:
            for _ in range(40):
                connection.execute("select set_config('events.home', '', false)")  # a new session would not know it
                PostgresStore(connection).append(f"account-{writer % 2}", [DEPOSITED])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_append, range(8)))
    assert len(store.read_all()) == 320


def test_a_transaction_that_cannot_go_on_says_so(session: Session, store: PostgresStore) -> None:
    """Two transactions, each of which has not seen what the other one appended."""
    store.append("account-1", [DEPOSITED], NO_STREAM)
    with session() as connection, session() as other:
        mine, theirs = PostgresStore(connection), PostgresStore(other)
        level = str(connection.execute("show transaction_isolation").fetchall()[0][0])
        with connection.transaction(force_rollback=True):
            assert [event.version for event in mine.read("account-1")] == [1]
            connection.execute("select pg_current_xact_id()")
            theirs.append("account-1", [DEPOSITED], 1)
            with pytest.raises(TransactionTooOld):
                mine.append("account-1", [DEPOSITED], 1 if level != "read committed" else 2)
    assert [event.version for event in store.read("account-1")] == [1, 2]


def test_decisions_on_each_other_s_stream_are_not_both_taken(schema: str, store: PostgresStore) -> None:
    """Write skew: neither appends where the other one does, and each has read what the other one changes."""
    with psycopg.connect(schema, autocommit=True) as connection, psycopg.connect(schema, autocommit=True) as other:
        for one in connection, other:
            one.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        mine, theirs = PostgresStore(connection), PostgresStore(other)
        with connection.transaction(force_rollback=True):
            assert list(mine.read("account-2")) == []
            with other.transaction():
                assert list(theirs.read("account-1")) == []
                theirs.append("account-2", [DEPOSITED], NO_STREAM)
            with pytest.raises(TransactionTooOld):
                mine.append("account-1", [DEPOSITED], NO_STREAM)
    assert list(store.read("account-1")) == []


def test_of_two_transactions_in_a_deadlock_one_can_be_done_again(schema: str, store: PostgresStore) -> None:
    """Each has appended where the other one wants to."""
    both = Barrier(2)

    def transaction(first: str, second: str) -> str:
        with psycopg.connect(schema, autocommit=True) as connection, connection.transaction(force_rollback=True):
            own = PostgresStore(connection)
            own.append(first, [DEPOSITED], NO_STREAM)
            both.wait(60)
            try:
                return str(own.append(second, [DEPOSITED], NO_STREAM))
            except TransactionTooOld:
                return "begin again"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(transaction, ["account-1", "account-2"], ["account-2", "account-1"]))
    assert sorted(outcomes) == ["1", "begin again"]
    assert store.read_all() == []
