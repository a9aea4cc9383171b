"""A snapshot changes how long a load takes, and nothing else."""

from collections.abc import Callable
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sourcing import snapshots
from sourcing.aggregate import InvariantViolated
from sourcing.event import Data
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.shop.order import Order
from sourcing.snapshots import AtMostEvery, EveryEvents, Frequency, Ignored, OnDemand, PostgresSnapshots, Taken
from sourcing.store import StreamMetadata

COMMANDS: dict[str, Callable[[Order], None]] = {
    "tea": lambda order: order.add_line("tea", 2, 500),
    "cups": lambda order: order.add_line("cups", 1, 1999),
    "no tea": lambda order: order.remove_line("tea"),
    "pay": lambda order: order.pay(order.total),
    "ship": lambda order: order.ship(),
    "cancel": lambda order: order.cancel("changed my mind"),
}


class Stricter(Account):
    """The account of a later program, whose state means something else."""

    state_version = 2


class Grown(Account):
    """The same, by somebody who forgot to raise the state version."""

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.withdrawn = 0

    def restore(self, state: Data) -> None:
        super().restore(state)
        self.withdrawn = state["withdrawn"]


@pytest.fixture
def kept(store: PostgresStore) -> PostgresSnapshots:
    store.connection.execute(snapshots.SCHEMA.read_text())
    return PostgresSnapshots(store.connection, OnDemand())


def account(store: PostgresStore, deposits: int, kept: PostgresSnapshots | None = None) -> Repository[Account]:
    """An account `account-1` that was opened and paid into so many times, one euro each, in one append each."""
    repository = Repository(store, Account, snapshots=kept)
    repository.execute("1", lambda account: account.open("Ada"))
    for _ in range(deposits):
        repository.execute("1", lambda account: account.deposit(100))
    return repository


def stored(store: PostgresStore) -> int:
    """The version of the snapshot of `account-1`; 0: there is none."""
    row = store.connection.execute("select version from snapshots where stream = 'account-1'").fetchone()
    return int(row[0]) if row else 0


@given(commands=st.lists(st.sampled_from(sorted(COMMANDS)), min_size=1, max_size=12), data=st.data())
@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_with_a_snapshot_at_any_version_the_fold_is_that_of_everything(
    store: PostgresStore, kept: PostgresSnapshots, commands: list[str], data: st.DataObject
) -> None:
    order = Order(uuid4().hex)
    order.place("Ada")
    for name in commands:
        try:
            COMMANDS[name](order)
        except InvariantViolated:
            continue
    store.append(order.stream, order.uncommitted, 0)
    whole = Repository(store, Order)
    kept.take(whole.load_at(order.id, version=data.draw(st.integers(1, len(order.uncommitted)))))
    used = kept.used
    found, expected = Repository(store, Order, snapshots=kept).load(order.id), whole.load(order.id)
    assert (found.version, found.state()) == (expected.version, expected.state())
    assert kept.used == used + 1


def test_only_the_events_after_the_snapshot_are_read(store: PostgresStore, kept: PostgresSnapshots) -> None:
    repository = account(store, 9, kept)
    kept.take(repository.load("1"))
    repository.execute("1", lambda account: account.deposit(100))
    fresh = Account("1")
    kept.restore(fresh)
    assert (fresh.version, fresh.balance) == (10, 900)
    assert len(list(store.read("account-1", after=fresh.version))) == 1


@pytest.mark.parametrize(("frequency", "version"), [(EveryEvents(5), 10), (AtMostEvery(3600), 1), (OnDemand(), 0)])
def test_the_frequency_says_when(
    frequency: Frequency, version: int, store: PostgresStore, kept: PostgresSnapshots
) -> None:
    kept.frequency = frequency
    account(store, 11, kept)
    assert stored(store) == version


def test_a_frequency_by_time_takes_one_when_the_last_is_old(store: PostgresStore, kept: PostgresSnapshots) -> None:
    kept.frequency = AtMostEvery(3600)
    repository = account(store, 3, kept)
    store.connection.execute("update snapshots set taken_at = taken_at - interval '2 hours'")
    for _ in range(2):  # the second one is soon after
        repository.execute("1", lambda account: account.deposit(100))
    assert (stored(store), kept.taken) == (5, 2)


def test_a_snapshot_of_another_state_version_is_ignored_counted_and_replaced(
    store: PostgresStore, kept: PostgresSnapshots
) -> None:
    kept.take(account(store, 9).load("1"))
    kept.frequency = EveryEvents(5)
    repository = Repository(store, Stricter, snapshots=kept)
    repository.execute("1", lambda account: account.deposit(100))
    assert kept.ignored == {Ignored.STATE_VERSION: 1}
    assert (repository.load("1").balance, stored(store), kept.used) == (1000, 11, 1)


def test_a_new_program_may_replace_the_snapshot_of_the_old_one_at_once(
    store: PostgresStore, kept: PostgresSnapshots
) -> None:
    kept.take(account(store, 9).load("1"))
    kept.take(Repository(store, Stricter).load("1"))
    assert Repository(store, Stricter, snapshots=kept).load("1").balance == 900
    assert (kept.used, kept.ignored) == (1, {})


DEEP = b'{"owner":' + b"[" * 5_000 + b"]" * 5_000 + b',"balance":1,"movements":1}'


@pytest.mark.parametrize(
    "state", [b"{", b"[]", b"{}", b'\xff"', DEEP, b'{"owner":"\\ud83d","balance":1,"movements":1}']
)
def test_a_snapshot_that_cannot_be_decoded_is_ignored(
    state: bytes, store: PostgresStore, kept: PostgresSnapshots
) -> None:
    repository = account(store, 3, kept)
    kept.take(repository.load("1"))
    store.connection.execute("update snapshots set state = %s", [state])
    assert repository.load("1").balance == 300
    assert kept.ignored == {Ignored.UNDECODABLE: 1}


def test_half_a_state_leaves_nothing_behind(store: PostgresStore, kept: PostgresSnapshots) -> None:
    kept.take(account(store, 3).load("1"))
    grown = Repository(store, Grown, snapshots=kept).load("1")
    assert (grown.balance, grown.movements) == (300, 3)


def test_a_snapshot_ahead_of_its_stream_is_ignored(store: PostgresStore, kept: PostgresSnapshots) -> None:
    """The events came back from a backup that is older than the snapshot."""
    repository = account(store, 3, kept)
    kept.take(repository.load("1"))
    store.connection.execute("delete from events where version = 4")
    assert repository.load("1").balance == 200
    assert kept.ignored == {Ignored.AHEAD: 1}


@pytest.mark.parametrize("after", [6, 7, 8, 20])
def test_a_snapshot_of_events_that_a_restore_has_taken_away_is_never_used_again(
    store: PostgresStore, kept: PostgresSnapshots, after: int
) -> None:
    """However long the stream has become since (core-jvm#838): its number is there again, its event is not."""
    repository = account(store, 5, kept)
    kept.take(repository.load("1"))
    store.connection.execute("delete from events where stream = 'account-1' and version > 3")
    for _ in range(after - 3):
        Repository(store, Account).execute("1", lambda account: account.deposit(1))
    assert (repository.load("1").balance, kept.used) == (200 + after - 3, 0)
    kept.take(Repository(store, Account).load("1"))
    assert (repository.load("1").balance, kept.used) == (200 + after - 3, 1)


def test_a_snapshot_at_an_event_that_was_scavenged_is_used(store: PostgresStore, kept: PostgresSnapshots) -> None:
    repository = account(store, 5, kept)
    kept.take(repository.load("1"))
    repository.execute("1", lambda account: account.deposit(100))
    store.set_metadata("account-1", StreamMetadata(truncate_before=7))
    assert store.scavenge() == 6
    assert (repository.load("1").balance, kept.used) == (600, 2)


def test_a_deleted_stream_does_not_come_back_by_its_snapshot(store: PostgresStore, kept: PostgresSnapshots) -> None:
    repository = account(store, 3, kept)
    kept.take(repository.load("1"))
    store.delete("account-1")
    assert (repository.load("1").version, kept.ignored) == (0, {Ignored.DELETED: 1})
    kept.forget("account-1")
    assert stored(store) == 0


def test_a_late_writer_does_not_replace_a_newer_snapshot(store: PostgresStore, kept: PostgresSnapshots) -> None:
    repository = account(store, 9)
    kept.take(repository.load("1"))
    kept.take(repository.load_at("1", version=4))
    assert stored(store) == 10


def test_what_is_not_saved_is_not_kept(kept: PostgresSnapshots) -> None:
    unsaved = Account("1")
    unsaved.open("Ada")
    with pytest.raises(ValueError, match="a snapshot is of saved events"):
        kept.take(unsaved)


def test_a_snapshot_that_fails_does_not_undo_the_save(store: PostgresStore, kept: PostgresSnapshots) -> None:
    kept.frequency = EveryEvents(1)
    store.connection.execute("alter table snapshots add check (version < 3)")
    with store.connection.transaction():
        account(store, 2, kept)
    assert (stored(store), kept.failed) == (2, 1)
    assert Repository(store, Account).load("1").balance == 200


class Dated(Account):
    """Its state is no JSON."""

    def state(self) -> Data:
        return {**super().state(), "at": (1, 2)}


def test_a_state_that_is_no_json_is_not_kept_and_does_not_undo_the_save(
    store: PostgresStore, kept: PostgresSnapshots
) -> None:
    kept.frequency = EveryEvents(1)
    Repository(store, Dated, snapshots=kept).execute("1", lambda account: account.open("Ada"))
    assert (stored(store), kept.failed, Repository(store, Dated).load("1").version) == (0, 1, 1)


def test_a_snapshot_is_taken_in_the_transaction_of_the_caller(store: PostgresStore, kept: PostgresSnapshots) -> None:
    kept.frequency = EveryEvents(1)
    with store.connection.transaction():
        account(store, 2, kept)
        raise psycopg.Rollback
    assert (stored(store), list(store.read("account-1"))) == (0, [])


def test_truncating_the_table_loses_nothing(store: PostgresStore, kept: PostgresSnapshots) -> None:
    kept.frequency = EveryEvents(2)
    repository = account(store, 5, kept)
    before = repository.load("1").state()
    store.connection.execute("truncate snapshots")
    assert repository.load("1").state() == before


def test_it_is_one_indexed_read(store: PostgresStore, kept: PostgresSnapshots) -> None:
    account(store, 3)
    store.connection.execute("set enable_seqscan = off")
    plan = store.connection.execute("explain " + snapshots.NEWEST, ["account-1"]).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert text.count("Index Scan") == 4  # the snapshot, its event, the last one; the metadata where that event is gone
    assert "Seq Scan" not in text


def test_the_frequencies_by_themselves() -> None:
    assert [version for version in range(12) if EveryEvents(5).due(version, Taken(4))] == [9, 10, 11]
    assert not AtMostEvery(0).due(4, Taken(4))
