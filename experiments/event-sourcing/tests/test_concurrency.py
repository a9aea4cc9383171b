"""Two writers, one after the other's read: what the rows do, and what the streams do."""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from sourcing.aggregate import InvariantViolated
from sourcing.errors import WrongExpectedVersion
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.stage.bank import Bank, Gates, open_accounts
from sourcing.stage.tellers import Rows, Streams, Turn, Way, Work, deposit, drain, serve
from sourcing.wrong import rows
from sourcing.wrong.writers import InOneStream, at_once, regardless

from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect
from shared.worker import Worker

Change = Callable[..., None]
EXPECTED, LOCKED = Streams("expected version", Repository.execute), Rows("select for update", rows.locked)
ONE_STREAM = Streams("one stream for all", Repository.execute, InOneStream)
ALL = (
    Rows("read, change, write", rows.read_change_write),
    Rows("check, then change", rows.check_then_change),
    Streams("any version", regardless),
    Streams("retry at once", at_once),
    *(EXPECTED, LOCKED, ONE_STREAM),
)


@pytest.fixture
def bank(store: PostgresStore, schema: str, tmp_path: Path) -> Bank:
    """One account with 10 euro in it, as a stream and as a row."""
    store.connection.execute(rows.SCHEMA)
    bank = Bank(schema, tmp_path / "history.jsonl", seed=1, count=10)
    open_accounts(bank, 1_000)
    rows.open_account(store.connection, "0", 1_000)
    return bank


def interleaved(way: Change, connection: Connection, cents: int) -> int:
    """Two changes, the second one done while the first is between its read and its write; the balance after both."""

    def between(window: str) -> None:
        assert window == rows.BETWEEN
        way(connection, "0", cents)

    way(connection, "0", cents, between)
    return rows.balance(connection, "0")


def test_read_change_write_loses_the_update_in_between(bank: Bank, connection: Connection) -> None:
    assert interleaved(rows.read_change_write, connection, 500) == 1_500


def test_check_then_change_loses_nothing_and_goes_below_zero(bank: Bank, connection: Connection) -> None:
    assert interleaved(rows.check_then_change, connection, -700) == -400


@pytest.mark.parametrize("way", [rows.read_change_write, rows.check_then_change, rows.locked])
def test_a_row_refuses_what_is_not_there_as_long_as_nobody_else_writes(
    way: Change, bank: Bank, connection: Connection
) -> None:
    with pytest.raises(InvariantViolated, match="account 0: 1001 is more than the balance of 1000"):
        way(connection, "0", -1_001)
    with pytest.raises(InvariantViolated, match="account 1: it was never opened"):
        way(connection, "1", 5)


def test_the_second_of_two_decisions_on_the_same_version_is_refused(bank: Bank, store: PostgresStore) -> None:
    accounts = Repository(store, Account)
    first, second = accounts.load("0"), accounts.load("0")
    first.withdraw(700)
    second.withdraw(700)
    accounts.save(first)
    with pytest.raises(WrongExpectedVersion, match="expected version 2, it is at 3"):
        accounts.save(second)
    assert accounts.load("0").balance == 300


def test_execute_decides_again_on_what_the_other_one_wrote(bank: Bank, store: PostgresStore) -> None:
    accounts = Repository(store, Account)

    def withdraw(account: Account) -> None:
        if accounts.conflicts == 0:
            Repository(store, Account).execute("0", lambda other: other.withdraw(700))
        account.withdraw(700)

    with pytest.raises(InvariantViolated, match="700 is more than the balance of 300"):
        accounts.execute("0", withdraw)
    assert accounts.conflicts == 1
    assert accounts.load("0").balance == 300


@pytest.mark.parametrize("way", ALL, ids=lambda way: way.name)
def test_alone_every_way_does_every_deposit(way: Way, bank: Bank, connection: Connection) -> None:
    if way is ONE_STREAM:
        way.create(bank, 1_000)
    deposit(bank, way, 0)
    history = History.read(bank.history)
    cents = sum(movement.cents for movement in bank.deposits(0))
    assert way.balance(connection, "0") == 1_000 + cents
    assert len(list(history.of(Action.WRITE, Outcome.OK))) == bank.count


@pytest.mark.parametrize("way", [EXPECTED, LOCKED], ids=lambda way: way.name)
def test_two_at_once_drain_an_account_and_not_more(
    way: Way, bank: Bank, connection: Connection, tmp_path: Path
) -> None:
    with connect(bank.conninfo) as gatekeeper:
        gates = Gates(gatekeeper, 1)
        turn = Turn(bank, Work(way, drain, 1))
        tellers = [Worker("teller", tmp_path / "log", serve, [turn], n).start() for n in range(2)]
        gates.await_all(0, 2)
        assert not bank.history.exists()
        gates.open(0)
    assert [teller.wait() for teller in tellers] == [0, 0]
    taken = sum(op.figures["cents"] for op in History.read(bank.history).of(Action.WRITE, Outcome.OK))
    assert way.balance(connection, "0") == 1_000 + taken >= 0


def test_tellers_who_must_meet_lose_an_update_for_certain(bank: Bank, connection: Connection, tmp_path: Path) -> None:
    losing = Rows("read, change, write", rows.read_change_write)
    turn = Turn(bank, Work(losing, deposit, 1, wrong=True), get_context("forkserver").Barrier(2))
    tellers = [Worker("teller", tmp_path / "log", serve, [turn], number).start() for number in range(2)]
    assert [teller.wait() for teller in tellers] == [0, 0]
    paid_in = sum(op.figures["cents"] for op in History.read(bank.history).of(Action.WRITE, Outcome.OK))
    assert rows.balance(connection, "0") < 1_000 + paid_in


def test_accounts_in_one_stream_keep_their_balances_apart(store: PostgresStore, schema: str, tmp_path: Path) -> None:
    bank = Bank(schema, tmp_path / "history.jsonl", seed=1, count=1, accounts=2)
    open_accounts(bank, 1_000, InOneStream)
    accounts = Repository(store, InOneStream)
    accounts.execute("0", lambda account: account.deposit(1))
    assert [accounts.load(ident).balance for ident in ("0", "1")] == [1_001, 1_000]
    assert accounts.load("1").version == 5
