"""Aggregates out of the store and back: at any version or time, past other writers, past broken streams."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import psycopg
import pytest
from sourcing.aggregate import InvariantViolated
from sourcing.errors import (
    SchemaMismatch,
    UndecodablePayload,
    UnknownEventType,
    UnreadableEvent,
    VersionGap,
    WrongExpectedVersion,
)
from sourcing.event import Data, Metadata, NewEvent, Recorded, data_of, metadata_of
from sourcing.postgres import PostgresStore
from sourcing.repository import ATTEMPTS, Repository
from sourcing.shop.account import Account
from sourcing.store import StreamMetadata

from shared.postgres import Connection

DEPOSITS = 100, 200, 300


@pytest.fixture
def accounts(store: PostgresStore) -> Repository[Account]:
    """Account 1 with three deposits: version 4, a balance of 600."""
    repository = Repository(store, Account)
    repository.execute("1", lambda account: account.open("customer-1"))
    for cents in DEPOSITS:
        repository.execute("1", depositing(cents))
    return repository


def depositing(cents: int) -> Callable[[Account], None]:
    return lambda account: account.deposit(cents)


def test_what_was_saved_is_loaded(accounts: Repository[Account]) -> None:
    account = accounts.load("1")
    assert account.state() == {"owner": "customer-1", "balance": 600, "movements": 3}
    assert (account.version, account.uncommitted) == (4, [])


def test_where_there_is_no_stream_there_is_a_new_aggregate(accounts: Repository[Account]) -> None:
    assert accounts.load("2").version == 0


@pytest.mark.parametrize(("version", "balance"), [(0, 0), (1, 0), (2, 100), (3, 300), (4, 600), (9, 600)])
def test_it_is_loaded_as_it_was_at_a_version(version: int, balance: int, accounts: Repository[Account]) -> None:
    account = accounts.load_at("1", version=version)
    assert (account.balance, account.version) == (balance, min(version, 4))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_it_is_loaded_as_it_was_at_a_time(version: int, accounts: Repository[Account]) -> None:
    [event] = accounts.store.read("account-1", after=version - 1, limit=1)
    assert accounts.load_at("1", time=event.recorded_at).version == version
    assert accounts.load_at("1", time=event.recorded_at - timedelta(microseconds=1)).version == version - 1


def test_what_was_loaded_from_the_past_cannot_be_saved_over_the_present(accounts: Repository[Account]) -> None:
    account = accounts.load_at("1", version=2)
    account.deposit(5)
    with pytest.raises(WrongExpectedVersion, match="expected version 2, it is at 4"):
        accounts.save(account)


@pytest.mark.parametrize("load", [Repository.load, partial(Repository.load_at, version=3)], ids=["now", "at a version"])
def test_without_a_snapshot_a_truncated_past_is_an_error_and_no_wrong_state(
    load: Callable[[Repository[Account], str], Account], accounts: Repository[Account]
) -> None:
    accounts.store.set_metadata("account-1", StreamMetadata(truncate_before=3))
    with pytest.raises(VersionGap, match="version 1 should come before it, and is not there"):
        load(accounts, "1")


def test_saving_nothing_writes_nothing(accounts: Repository[Account]) -> None:
    assert accounts.save(accounts.load("1")) == 4
    assert len(list(accounts.store.read("account-1"))) == 4


def test_a_refused_command_writes_nothing(accounts: Repository[Account]) -> None:
    with pytest.raises(InvariantViolated):
        accounts.execute("1", lambda account: account.withdraw(601))
    assert accounts.load("1").version == 4


def test_on_a_conflict_the_command_decides_again_by_what_the_other_wrote(accounts: Repository[Account]) -> None:
    """Another writer takes all the money between load and save: the second decision must be another one."""
    other = Repository(accounts.store, Account)
    seen: list[int] = []

    def withdraw_all(account: Account) -> None:
        if not seen:
            other.execute("1", lambda account: account.withdraw(550))
        seen.append(account.balance)
        account.withdraw(account.balance)

    accounts.execute("1", withdraw_all)
    assert (seen, accounts.conflicts) == ([600, 50], 1)
    assert accounts.load("1").balance == 0


def test_a_conflict_can_end_in_a_refusal(accounts: Repository[Account]) -> None:
    other = Repository(accounts.store, Account)

    def withdraw(account: Account) -> None:
        if account.balance == 600:
            other.execute("1", lambda account: account.withdraw(550))
        account.withdraw(100)

    with pytest.raises(InvariantViolated, match="100 is more than the balance of 50"):
        accounts.execute("1", withdraw)
    assert accounts.load("1").balance == 50


def test_who_never_wins_is_told_so(accounts: Repository[Account], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts._retrying, "wait", lambda state: 0)
    other = Repository(accounts.store, Account)

    def outrun(account: Account) -> None:
        other.execute("1", depositing(1))
        account.deposit(1)

    with pytest.raises(WrongExpectedVersion):
        accounts.execute("1", outrun)
    assert (accounts.conflicts, accounts.load("1").balance) == (ATTEMPTS, 600 + ATTEMPTS)


def test_who_and_why_is_stored_with_each_event(accounts: Repository[Account]) -> None:
    why = Metadata("visit-1", "request-1", "customer-1", "saves")
    accounts.execute("1", depositing(5), why)
    [last] = accounts.store.read("account-1", backwards=True, limit=1)
    assert metadata_of(last) == why


def test_a_gap_in_the_versions_is_an_error(accounts: Repository[Account], connection: Connection) -> None:
    connection.execute("delete from events where version = 3")
    with pytest.raises(VersionGap, match=r"event 4 of stream 'account-1', type 'Deposited': version 3 should come"):
        accounts.load("1")


def test_an_event_of_unknown_type_is_an_error(accounts: Repository[Account]) -> None:
    accounts.store.append("account-1", [NewEvent("Teleported", {})], 4)
    with pytest.raises(UnknownEventType, match="event 5 of stream 'account-1', type 'Teleported': Account does not"):
        accounts.load("1")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[1]", b"{", b""])
def test_a_payload_that_is_no_json_object_is_an_error(
    data: bytes, accounts: Repository[Account], connection: Connection
) -> None:
    connection.execute("update events set data = %s where version = 2", [data])
    with pytest.raises(UndecodablePayload, match="event 2 of stream 'account-1', type 'Deposited'") as caught:
        accounts.load("1")
    assert isinstance(caught.value, UnreadableEvent)


def test_what_lies_before_the_broken_event_can_still_be_loaded(
    accounts: Repository[Account], connection: Connection
) -> None:
    connection.execute("update events set data = '' where version = 4")
    assert accounts.load_at("1", version=3).balance == 300


class Touchy(Account):
    """Raises what it is told to."""

    raises: ClassVar[Exception]

    def apply(self, type_: str, data: Data) -> None:
        if type_ == "Deposited":
            raise self.raises
        super().apply(type_, data)


class OwnError(Exception):
    """Of nobody's hierarchy."""


ERRORS = [KeyError("cents"), TypeError("x"), AttributeError("x"), ZeroDivisionError(), RecursionError(), OwnError()]


@pytest.mark.parametrize("error", [*ERRORS, InvariantViolated("below zero"), AssertionError()], ids=repr)
def test_an_event_that_its_owner_s_code_cannot_apply_names_itself(
    error: Exception, accounts: Repository[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Touchy, "raises", error, raising=False)
    with pytest.raises(SchemaMismatch, match="event 2 of stream 'account-1', type 'Deposited': Touchy cannot apply it"):
        Repository(accounts.store, Touchy).load("1")


def test_an_event_without_a_field_names_itself(accounts: Repository[Account]) -> None:
    accounts.store.append("account-1", [NewEvent("Deposited", {"euro": 5})], 4)
    with pytest.raises(UnreadableEvent, match=r"event 5 of stream 'account-1', type 'Deposited': .*'cents'"):
        accounts.load("1")


@pytest.mark.parametrize("error", ERRORS[:-1], ids=repr)
def test_an_event_that_the_reader_cannot_read_names_itself(error: Exception, accounts: Repository[Account]) -> None:
    def read(event: Recorded) -> Iterable[tuple[str, Data]]:
        yield event.type, data_of(event)
        raise error

    with pytest.raises(SchemaMismatch, match="event 1 of stream 'account-1', type 'AccountOpened': it cannot be read"):
        Repository(accounts.store, Account, read).load("1")


def test_a_database_that_fails_while_reading_is_no_fault_of_the_event(accounts: Repository[Account]) -> None:
    def read(event: Recorded) -> Iterable[tuple[str, Data]]:
        raise psycopg.OperationalError("the vault is away")

    with pytest.raises(psycopg.OperationalError, match="the vault is away"):
        Repository(accounts.store, Account, read).load("1")


@pytest.mark.parametrize(("minute", "version"), [(59, 0), (60, 1), (75, 1), (90, 4), (120, 4)])
def test_where_the_clock_was_set_back_a_replay_stops_and_passes_over_nothing(
    minute: int, version: int, accounts: Repository[Account], connection: Connection
) -> None:
    """Recorded in minutes 60, 90, 30 and 40: the clock was set back by an hour after the second event."""
    times = "('{60,90,30,40}'::int[])[version] * interval '1 minute' + timestamptz '2026-01-01 00:00Z'"
    connection.execute(f"update events set recorded_at = {times}")  # noqa: S608
    asked = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    assert accounts.load_at("1", time=asked).version == version
