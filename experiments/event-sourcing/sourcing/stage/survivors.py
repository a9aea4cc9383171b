"""Tellers and a projector that outlive their database: what fails is tried again, and the outcome of it may be unknown.

`repeat_the_same` is the Repository's way, which is right whatever became of an append that was not answered. The
projector is the `Projector`, made anew on a new session.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shared.errors import HistoryError
from shared.experiment import Run
from shared.faults import Faults, Kill, hook
from shared.history import Action, History, Op, Outcome, Recorder, now
from shared.postgres import Connection, connect, create_schema, having, number
from shared.proxy import Proxy
from shared.servers.handle import Handle
from shared.session import AGAIN, AWAY, Session, keep_trying
from shared.wait import until
from shared.worker import Worker, until_told
from sourcing import checkpoint
from sourcing.event import Data, Metadata, NewEvent, Recorded, data_of, metadata_of
from sourcing.postgres import PostgresStore, create
from sourcing.projection import Change, Projection, Projector, install
from sourcing.repository import Repository, as_stored
from sourcing.shop.account import Account
from sourcing.shop.read_models import columns
from sourcing.stage.bank import Bank, gate, open_accounts, pass_gate
from sourcing.stage.readers import Query, Reader, by_xid_and_position
from sourcing.store import ANY
from sourcing.windows import ProjectionWindow
from sourcing.wrong.anew import Deposit

T = TypeVar("T")
Reading = list[Recorded]  # as it was read, in its order
DELAY = 0.003  # seconds that the network takes each way: the time in which an answer can be lost
OPENING = 10_000  # cents in every account
WRITERS, ACCOUNTS = 8, 4
NO_END = 10**9  # the load lasts until the last fault is over
MOST = 20  # kills until a server that forgets has forgotten something: one that wrote just before forgets nothing
PATIENCE = 5  # seconds after which a connection attempt counts as failed
IN_ORDER = Query("(xid, position) > last", "log", by_xid_and_position)


class AppendWindow(StrEnum):
    """Where a writer can die while it appends."""

    BEFORE = "before the append"
    UNANSWERED = "sent, not answered"  # nothing of ours runs in it: it is killed from outside
    AFTER = "answered, not noted"


class Asked(PostgresStore):
    """Says so when it gets no answer to an append."""

    def __init__(self, connection: Connection, doubt: Callable[[], object]) -> None:
        super().__init__(connection)
        self.doubt = doubt

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        try:
            return super().append(stream, events, expected)
        except AWAY as error:
            print(f"{now()} again after {type(error).__name__}: {error}")
            self.doubt()
            raise


class StoreSession(Session):
    """With a store on its connection. `doubt` is called for each unanswered append."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(make_conninfo(conninfo, connect_timeout=PATIENCE))
        self.doubt: Callable[[], object] = lambda: None
        self._store: PostgresStore | None = None

    def store(self) -> PostgresStore:
        """Raises OperationalError where there is no connection to be had."""
        connection = self.get()
        if self._store is None or self._store.connection is not connection:
            self._store = Asked(connection, lambda: self.doubt())
        return self._store

    def keep_trying(self, attempt: Callable[[PostgresStore], T]) -> T:
        """The attempt's result; after a failure it is repeated on a new session."""
        while True:
            try:
                return attempt(self.store())
            except AWAY:
                time.sleep(AGAIN)


# The writers.

Retry = Callable[[StoreSession], Deposit]


def repeat_the_same(session: StoreSession) -> Deposit:
    """Decide, and leave the rest to the Repository: a conflict is decided again, an append in doubt is repeated."""
    seen: set[str] = set()

    def read(event: Recorded) -> Iterable[tuple[str, Data]]:
        seen.add(event.id)
        return as_stored(event)

    accounts = Repository(session.keep_trying(lambda store: store), Account, read, None, AWAY, session.store)

    def deposit(command: str, account: str, cents: int) -> None:
        def decide(found: Account) -> None:
            if command in seen:
                return  # by an earlier life of this process, which could not note it
            found.deposit(cents)
            found.uncommitted = [replace(event, id=command) for event in found.uncommitted]

        accounts.execute(account, decide, Metadata(causation_id=command))

    return deposit


def deposit_through(bank: Bank, way: Retry, teller: int, first: int = 0, kill: Kill | None = None) -> None:
    """A process: do the deposits from number `first` on, whatever becomes of the database, or until SIGTERM."""
    stop, session = until_told(), StoreSession(bank.conninfo)
    with Recorder(bank.history, f"teller-{teller}") as recorder:
        at = hook(kill, recorder)
        session.keep_trying(lambda store: pass_gate(store.connection))
        deposit = way(session)
        for movement in islice(bank.deposits(teller), first, None):
            if stop.is_set():
                break
            note = partial(recorder.record, Action.WRITE, value=movement.id, key=f"account-{movement.account}")
            session.doubt = partial(note, Outcome.UNKNOWN)
            note(Outcome.INVOKE)
            at(AppendWindow.BEFORE)
            deposit(movement.id, movement.account, movement.cents)
            at(AppendWindow.AFTER)
            note(Outcome.OK)
    session.close()


# The projector.


class Balances(Projection):
    """What is in every account, and by how many events."""

    name: ClassVar[str] = "balances"
    tables: ClassVar[tuple[str, ...]] = ("balances",)
    schema: ClassVar[str] = (
        "create table balances (account text primary key, cents bigint not null, events int not null)"
    )
    category: ClassVar[str] = "account"
    types: ClassVar[frozenset[str]] = frozenset({"AccountOpened", "Deposited"})
    add = """
    insert into balances as known select account, sum(cents), count(*)
    from unnest(%s::text[], %s::bigint[]) as moved (account, cents) group by account
    on conflict (account) do update set cents = known.cents + excluded.cents, events = known.events + excluded.events
    """

    def handle(self, connection: Connection, changes: Sequence[Change]) -> None:
        moved = [(change.event.stream, change.data.get("cents", 0)) for change in changes]
        connection.execute(self.add, columns(moved), prepare=True)


def project(bank: Bank, kill: Kill | None = None) -> None:
    """A process: keep the balances until SIGTERM. What was read may be read again; what was counted is not."""
    stop = until_told()
    projector: Projector
    with Recorder(bank.history, "projector") as recorder:
        crash = hook(kill, recorder)

        def at(window: str) -> None:
            if window == ProjectionWindow.AFTER_READ:
                recorder.add(*(_op(Action.DELIVER, event, "projector") for event in projector.events))
            crash(window)

        def run() -> None:
            nonlocal projector
            with connect(make_conninfo(bank.conninfo, connect_timeout=PATIENCE)) as connection:
                projector = Projector(connection, Balances(), at=at)
                projector.run(stop)

        keep_trying(run, stop=stop)


def read_model(conninfo: str) -> dict[str, tuple[int, int]]:
    """Stream -> (cents, events), as the projector has it."""
    with connect(conninfo) as connection:
        found = connection.execute("select account, cents, events from balances").fetchall()
        return {stream: (cents, events) for stream, cents, events in found}


def behind(conninfo: str) -> int:
    """How many events the projector has not taken in."""
    with connect(conninfo) as connection:
        return sum(one.events for one in checkpoint.lag(connection) if one.projection == Balances.name)


# What is there, and what it took.


def read_log(conninfo: str) -> list[Recorded]:
    """All events that a reader may have now, in their order."""
    events: list[Recorded] = []
    with connect(conninfo) as connection:
        reader = Reader(connection, IN_ORDER, events.append)
        while reader.step():
            continue
    return events


def gone(conninfo: str, history: Path) -> int:
    """How many appends under ids of their own were acknowledged, by now, and are not in the log."""
    acknowledged = {op.value for op in History.read(history).of(Action.WRITE, Outcome.OK)}
    with connect(conninfo) as connection:
        return len(acknowledged - {ident for (ident,) in connection.execute("select id::text from events").fetchall()})


def settle(conninfo: str, recorder: Recorder) -> list[Recorded]:
    """The final read: the whole log in order, every event the effect of the command that it says it follows from."""
    events: list[Recorded] = []
    with connect(conninfo) as connection:
        Reader(connection, IN_ORDER, events.append).finish()
    for event in events:
        recorder.add(_op(Action.READ, event, "database"), _op(Action.EFFECT, event, "log"))
    recorder.record(Action.READ, Outcome.OK, process="database")
    return events


def recovery(history: History, note: str = "SIGKILL, restart") -> list[float]:
    """Seconds from each such fault to the first append that was acknowledged after its end.

    Raises HistoryError where none was: there is no number for "never".
    """
    acknowledged = [op.at for op in history.of(Action.WRITE, Outcome.OK)]
    took = []
    for fault in (fault for fault in history.faults if fault.note == note):
        after = [at for at in acknowledged if at > fault.until]
        if not after:
            raise HistoryError(f"after a {note!r} no append was ever acknowledged again")
        took.append((min(after) - fault.at) / 1e9)
    return took


def _op(action: Action, event: Recorded, process: str) -> Op:
    command = metadata_of(event).causation_id or event.id
    return Op(now(), process, action, Outcome.OK, command, event.stream, event.version)


# Where it happens, and the harm that is done.


@dataclass(frozen=True)
class Deployment:
    """One variant's place on the server: its bank is reached through a network that can be cut."""

    run: Run
    server: Handle
    network: Proxy
    recorder: Recorder
    direct: str  # conninfo of the same schema, past the network
    bank: Bank
    way: Retry
    forgets: bool  # what it acknowledged, if it is killed at the right moment


@dataclass(frozen=True)
class Left:
    """What the faults left. `before` is the log as it was read before each fault, `after` at the end."""

    history: History
    before: list[Reading]
    after: list[Recorded]
    model: dict[str, tuple[int, int]]  # stream -> (cents, events), as the projector has it
    restarts: list[float]  # seconds that the killed server took until it answered

    @property
    def folded(self) -> dict[str, tuple[int, int]]:
        """Stream -> (cents, events), by the log."""
        found: dict[str, tuple[int, int]] = {}
        for event in self.after:
            cents, events = found.get(event.stream, (0, 0))
            found[event.stream] = cents + data_of(event).get("cents", 0), events + 1
        return found

    @property
    def gapless(self) -> bool:
        """Whether in the order of the log the versions of every stream are 1, 2, 3 and so on."""
        versions: dict[str, list[int]] = {}
        for event in self.after:
            versions.setdefault(event.stream, []).append(event.version)
        return all(found == list(range(1, len(found) + 1)) for found in versions.values())

    @property
    def gone(self) -> int:
        """Appends that were acknowledged and are not in the log."""
        acknowledged = {value for value, op in self.history.written.items() if op.outcome is Outcome.OK}
        return len(acknowledged - self.history.found)

    @property
    def unknown(self) -> int:
        """Appends of which a teller could not know whether they were done."""
        return len({op.value for op in self.history.of(Action.WRITE, Outcome.UNKNOWN)})

    @property
    def rewritten(self) -> int:
        """Events that were read before a fault and are not at their place in the log, to the byte, at the end."""
        return sum(len(log) - sum(a == b for a, b in zip(log, self.after, strict=False)) for log in self.before)


@contextmanager
def deployed(run: Run, server: Handle, name: str, way: Retry, *, synchronous: bool) -> Iterator[Deployment]:
    """A schema on the server, its bank behind a network of its own, and a history of that name."""
    direct = create_schema(server.endpoint, f"{run.name}_{len(run.histories)}")
    create(direct)
    with connect(direct) as connection:
        install(connection, Balances())
    bank = Bank(direct, run.history_file(name), run.seed, NO_END, ACCOUNTS)
    open_accounts(bank, OPENING)
    recorder = run.recorder(name, "experiment")
    for event in read_log(direct):
        recorder.record(Action.WRITE, Outcome.OK, event.id, key=event.stream, seq=event.version)
    with Proxy("network", f"127.0.0.1:{conninfo_to_dict(server.endpoint.url)['port']}") as network:
        network.delay = DELAY
        through = make_conninfo(direct, port=network.port)
        through = through if synchronous else having(through, synchronous_commit="off")
        yield Deployment(run, server, network, recorder, direct, replace(bank, conninfo=through), way, not synchronous)


def start_load(deployed: Deployment) -> tuple[Worker, list[Worker]]:
    """The projector and the tellers. One of these, and the projector, have been killed in a window by now."""
    run, bank = deployed.run, deployed.bank
    with gate(deployed.direct, WRITERS):
        projector = run.worker("projector", project, bank, Kill(ProjectionWindow.BETWEEN, nth=3))
        doomed = teller(deployed, 0, Kill(AppendWindow.AFTER, nth=3))
        tellers = [teller(deployed, number) for number in range(1, WRITERS)]
    doomed.wait()
    tellers.append(teller(deployed, 0))
    projector.wait()
    return run.worker("projector", project, bank), tellers


def end_load(deployed: Deployment, projector: Worker, tellers: list[Worker]) -> None:
    """All stop, and the projector with all that there is taken in."""
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(Worker.stop, tellers))
    until("the projector to catch up", lambda: behind(deployed.direct) == 0)
    projector.stop()
    until("all sessions to end", lambda: sessions(deployed) == 0)


def teller(deployed: Deployment, number: int, kill: Kill | None = None) -> Worker:
    """Begins behind the last deposit that it noted as done, as a supervised process would."""
    name, history = f"teller-{number}", deployed.bank.history
    done = sum(op.process == name for op in History.read(history).of(Action.WRITE, Outcome.OK))
    return deployed.run.worker(name, deposit_through, deployed.bank, deployed.way, number, done, kill)


def forgets_nothing_yet(deployed: Deployment, kills: int) -> bool:
    """Whether a server that may forget what it acknowledged has not, and was not killed too often for it."""
    return deployed.forgets and kills < MOST and not gone(deployed.direct, deployed.bank.history)


def cut(deployed: Deployment) -> None:
    """All connections are reset, until somebody was refused a new one."""
    seen = deployed.network.connections
    with Faults(deployed.recorder).cut(deployed.network):
        until("a teller to be refused", lambda: deployed.network.connections > seen)


def kill_server(deployed: Deployment) -> float:
    """kill -9, until a teller has found nobody; returns the seconds that it then took until it answered."""
    seen = deployed.network.connections
    with Faults(deployed.recorder).down(deployed.server):
        until("a teller to find nobody", lambda: deployed.network.connections > seen)
    return deployed.server.record.seconds


def more_of_log(deployed: Deployment, events: int) -> list[Recorded]:
    """The log, once it has so many events more than now."""
    now = len(read_log(deployed.direct))

    def grown() -> list[Recorded] | None:
        log = read_log(deployed.direct)
        return log if len(log) >= now + events else None

    return until(f"{events} more events in the log", grown, 60)


def sessions(deployed: Deployment) -> int:
    """How many there are beside the one that asks."""
    query = "select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'"
    with connect(deployed.direct) as connection:
        return number(connection, query)
