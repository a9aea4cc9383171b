"""A writer, the network or Postgres dies while an append is under way: the same append again settles it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sourcing import repository
from sourcing.errors import WrongExpectedVersion
from sourcing.event import NewEvent
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Projector, install
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.stage.bank import Bank, open_accounts
from sourcing.stage.survivors import (
    AppendWindow,
    Balances,
    Retry,
    deposit_through,
    project,
    recovery,
    repeat_the_same,
    settle,
)
from sourcing.store import ANY, NO_STREAM
from sourcing.windows import ProjectionWindow
from sourcing.wrong.anew import append_anew

from shared import postgres
from shared.checkers import duplicate_effect
from shared.errors import HistoryError
from shared.faults import Faults, Kill, require
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect
from shared.proxy import Proxy
from shared.pytest_plugin import OwnStarter
from shared.servers.server import Endpoint
from shared.session import AWAY
from shared.wait import until
from shared.worker import Worker

STREAM = "account-0"
BLOCKED = """
select count(*) from pg_stat_activity join pg_locks using (pid)
where wait_event_type = 'Lock' and locktype = 'transactionid' and not granted and query like '%%insert into events%%'
  and %s = any (pg_blocking_pids(pid))
"""


class Blocker:
    """Has written the next version and not committed: whoever appends to the stream now is sent and not answered."""

    def __init__(self, conninfo: str, expected: int = NO_STREAM) -> None:
        self.connection = connect(conninfo)
        self.connection.execute("begin")
        PostgresStore(self.connection).append(STREAM, [NewEvent("Deposited", {"cents": 1})], expected)

    def await_blocked(self, watching: Connection) -> None:
        pid = self.connection.info.backend_pid
        until("the append to wait", lambda: (watching.execute(BLOCKED, [pid]).fetchone() or [0])[0] == 1)

    def end(self, how: str) -> None:
        self.connection.execute(how)
        self.connection.close()


@pytest.fixture
def bank(store: PostgresStore, schema: str, tmp_path: Path) -> Bank:
    """An open account, and a projector's tables."""
    install(store.connection, Balances())
    bank = Bank(schema, tmp_path / "history.jsonl", seed=1, count=5)
    open_accounts(bank, 1_000)
    return bank


def judged(bank: Bank) -> History:
    with Recorder(bank.history, "test") as recorder:
        settle(bank.conninfo, recorder)
    return History.read(bank.history)


# The writer dies.


@pytest.mark.fault
@pytest.mark.parametrize("window", [AppendWindow.BEFORE, AppendWindow.AFTER])
@pytest.mark.parametrize(("way", "twice"), [(repeat_the_same, 0), (append_anew, 1)])
def test_a_writer_killed_in_a_window_starts_again_with_the_deposit_that_it_did_not_note(
    way: Retry, twice: int, window: AppendWindow, bank: Bank, tmp_path: Path
) -> None:
    kill = Kill(window, nth=3)
    assert Worker("teller", tmp_path / "log", deposit_through, bank, way, 0, 0, kill).start().wait() == -9
    deposit_through(bank, way, 0, first=2)
    history = judged(bank)
    require(history, f"SIGKILL {window}")
    assert len(duplicate_effect(history)) == (twice if window is AppendWindow.AFTER else 0)
    assert history.found >= {movement.id for movement in bank.deposits(0)}


@pytest.mark.fault
@pytest.mark.parametrize("end", ["rollback", "commit"])
def test_a_writer_killed_with_its_append_sent_and_unanswered_counts_once(
    end: str, bank: Bank, store: PostgresStore, tmp_path: Path
) -> None:
    blocker = Blocker(bank.conninfo, expected=2)
    teller = Worker("teller", tmp_path / "log", deposit_through, bank, repeat_the_same, 0).start()
    blocker.await_blocked(store.connection)
    with Recorder(bank.history, "test") as recorder:
        Faults(recorder).kill(teller)
    blocker.end(end)  # the server goes on with the dead one's append: it is done, or meets the blocker's
    deposit_through(bank, repeat_the_same, 0)
    history = judged(bank)
    require(history, "SIGKILL")
    assert not duplicate_effect(history)
    assert len(list(store.read(STREAM))) == 2 + bank.count + (end == "commit")


# The answer is lost.


@pytest.fixture
def network(postgres: Endpoint) -> Iterator[Proxy]:
    given = conninfo_to_dict(postgres.url)
    with Proxy("network", f"{given['host']}:{given.get('port', 5432)}") as proxy:
        yield proxy


class Unanswered:
    """An append through a network that was cut after it was sent; its blocker is still there."""

    def __init__(self, schema: str, network: Proxy, watching: Connection, recorder: Recorder) -> None:
        self.event = NewEvent("Deposited", {"cents": 5})
        self.blocker = Blocker(schema)
        through = PostgresStore(connect(make_conninfo(schema, host="127.0.0.1", port=network.port)))
        with ThreadPoolExecutor(1) as pool:
            append: Future[int] = pool.submit(through.append, STREAM, [self.event], NO_STREAM)
            self.blocker.await_blocked(watching)
            with Faults(recorder).cut(network):
                self.error = append.exception(10)
        through.close()


@pytest.fixture
def unanswered(schema: str, network: Proxy, store: PostgresStore, recorder: Recorder) -> Unanswered:
    found = Unanswered(schema, network, store.connection, recorder)
    require(History.read(recorder.path), "cut")
    assert isinstance(found.error, psycopg.OperationalError)
    return found


@pytest.mark.fault
def test_an_append_that_was_done_after_all_is_known_by_its_id(unanswered: Unanswered, store: PostgresStore) -> None:
    unanswered.blocker.end("rollback")
    until("the append, by a server that nobody listens to", lambda: list(store.read(STREAM)))
    store.append(STREAM, [NewEvent("Deposited", {"cents": 7})], 1)  # also when others have gone on meanwhile
    assert store.append(STREAM, [unanswered.event], NO_STREAM) == 1
    assert [event.id for event in store.read(STREAM)].count(unanswered.event.id) == 1


@pytest.mark.fault
def test_an_append_that_was_never_done_is_done_by_its_repetition(unanswered: Unanswered, store: PostgresStore) -> None:
    doomed = "select pg_terminate_backend(pid) from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
    assert len(store.connection.execute(doomed, [unanswered.blocker.connection.info.backend_pid]).fetchall()) == 1
    unanswered.blocker.end("rollback")
    assert store.append(STREAM, [unanswered.event], NO_STREAM) == 1
    assert [event.id for event in store.read(STREAM)] == [unanswered.event.id]


@pytest.mark.fault
def test_an_append_that_was_overtaken_is_refused_for_good(unanswered: Unanswered, store: PostgresStore) -> None:
    unanswered.blocker.end("commit")
    with pytest.raises(WrongExpectedVersion, match="expected version 0, it is at 1"):
        store.append(STREAM, [unanswered.event], NO_STREAM)
    assert unanswered.event.id not in {event.id for event in store.read(STREAM)}


@pytest.mark.fault
def test_the_repetition_waits_for_the_append_that_is_still_under_way(
    unanswered: Unanswered, schema: str, store: PostgresStore
) -> None:
    """It cannot overtake it: both want the same version, and the second one waits for the first one's end."""
    with ThreadPoolExecutor(1) as pool, connect(schema) as connection:
        again: Future[int] = pool.submit(PostgresStore(connection).append, STREAM, [unanswered.event], NO_STREAM)
        until("two to wait", lambda: waiting(store.connection, schema) == 2)
        unanswered.blocker.end("rollback")
        assert again.result(10) == 1
    assert len(list(store.read(STREAM))) == 1


def waiting(watching: Connection, schema: str) -> int:
    query = """
    select count(*) from pg_locks where not granted and locktype = 'transactionid'
      and pid in (select pid from pg_locks where relation = 'events'::regclass)
    """
    row = watching.execute(query).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.fault
@pytest.mark.parametrize("ids", ["the same id", "a new id"])
def test_under_any_version_the_repetition_doubles_whatever_its_id(
    ids: str, unanswered: Unanswered, store: PostgresStore
) -> None:
    unanswered.blocker.end("rollback")
    until("the append, by a server that nobody listens to", lambda: list(store.read(STREAM)))
    again = unanswered.event if ids == "the same id" else NewEvent("Deposited", {"cents": 5})
    assert store.append(STREAM, [again], ANY) == 2


# Postgres dies.


@pytest.mark.fault
def test_postgres_killed_keeps_what_it_acknowledged_and_forgets_what_was_under_way(
    own: OwnStarter, recorder: Recorder, unique: str
) -> None:
    server = own("postgres")
    conninfo = postgres.create_schema(server.endpoint, unique)
    create(conninfo)
    done, under_way = (NewEvent("Deposited", {"cents": cents}) for cents in (1, 2))
    with ThreadPoolExecutor(1) as pool, ExitStack() as sessions:
        first, watching = (sessions.enter_context(connect(conninfo)) for _ in range(2))
        PostgresStore(first).append(STREAM, [done], NO_STREAM)
        blocker = Blocker(conninfo, expected=1)
        sessions.callback(blocker.connection.close)
        append: Future[int] = pool.submit(PostgresStore(first).append, STREAM, [under_way], 1)
        blocker.await_blocked(watching)
        with Faults(recorder).down(server):
            assert isinstance(append.exception(10), psycopg.OperationalError)
    require(History.read(recorder.path), "SIGKILL, restart")
    with connect(conninfo) as connection:
        again = PostgresStore(connection)
        assert [event.id for event in again.read(STREAM)] == [done.id]
        assert again.append(STREAM, [under_way], 1) == 2


# The projector dies.


@pytest.mark.fault
@pytest.mark.parametrize("window", ProjectionWindow)
def test_a_projector_killed_in_any_window_counts_every_event_once(
    window: ProjectionWindow, bank: Bank, connection: Connection, tmp_path: Path
) -> None:
    deposit_through(bank, repeat_the_same, 0)
    assert Worker("projector", tmp_path / "log", project, bank, Kill(window)).start().wait() == -9
    Projector(connection, Balances()).catch_up()
    require(History.read(bank.history), f"SIGKILL {window}")
    expected = 1_000 + sum(movement.cents for movement in bank.deposits(0))
    assert connection.execute("select * from balances").fetchall() == [(STREAM, expected, 2 + bank.count)]


# The Repository in doubt.


class Losing(PostgresStore):
    """Appends, and loses the answer: its session is gone the moment after, or the moment before."""

    done = True

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        version = super().append(stream, events, expected) if self.done else 0
        self.connection.close()
        raise psycopg.OperationalError(f"no answer to an append at {version}")


@pytest.mark.parametrize("done", [True, False])
def test_a_repository_repeats_the_append_that_was_not_answered(
    done: bool, bank: Bank, store: PostgresStore, connection: Connection
) -> None:
    losing = Losing(connect(bank.conninfo))
    losing.done = done
    accounts = Repository(losing, Account, unanswered=AWAY, reopen=lambda: store)
    accounts.execute("0", lambda account: account.deposit(5))
    assert [event.version for event in store.read(STREAM)] == [1, 2, 3]
    assert accounts.load("0").balance == 1_005


def test_without_being_told_how_a_repository_hands_the_doubt_on(bank: Bank) -> None:
    accounts = Repository(Losing(connect(bank.conninfo)), Account)
    with pytest.raises(psycopg.OperationalError, match="no answer to an append at 3"):
        accounts.execute("0", lambda account: account.deposit(5))


def test_a_load_that_is_not_answered_is_repeated_too(
    bank: Bank, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "PATIENCE", 60.0)
    lost = PostgresStore(connect(bank.conninfo))
    lost.close()
    accounts = Repository(lost, Account, unanswered=AWAY, reopen=lambda: store)
    assert accounts.load("0").balance == 1_000


def test_after_a_fault_in_which_nothing_was_ever_done_again_there_is_no_recovery(recorder: Recorder) -> None:
    recorder.record(Action.WRITE, Outcome.OK, "1")
    recorder.add(Op(now(), "test", Action.FAULT, Outcome.OK, note="SIGKILL, restart", until=now()))
    with pytest.raises(HistoryError, match="no append was ever acknowledged again"):
        recovery(History.read(recorder.path))
