"""What worker processes run: tellers of a bank, who all move money at once, each in one of several ways.

`retrying` is the Repository's. The others are there to be measured against it: wrong/rows.py and wrong/writers.py. Each
calls the hook of its `Meeting`, with the account's name, between its read and its write.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path

from shared.experiment import Run
from shared.faults import Hook, nowhere
from shared.history import Action, History, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.wait import until
from shared.workload import seeded_id
from sourcing.aggregate import InvariantViolated
from sourcing.errors import WrongExpectedVersion
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.wrong import rows
from sourcing.wrong.writers import InOneStream, Move, at_once, change, regardless

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 60.0  # seconds for the others to come


@dataclass(frozen=True)
class Movement:
    """A command: its id is that of the event it leads to, so that it can be found again after a lost answer."""

    id: str
    account: str
    cents: int  # below zero: a withdrawal


@dataclass(frozen=True)
class Bank:
    """Where a run happens, and the seeded work of its tellers: the same in every process."""

    conninfo: str
    history: Path
    seed: int
    count: int  # movements of each teller
    accounts: int = 1  # teller n works on account n modulo this
    prefix: str = ""  # what account ids begin with: runs with different prefixes share their tables

    def account(self, number: int) -> str:
        return f"{self.prefix}{number % self.accounts}"

    def deposits(self, teller: int) -> Iterator[Movement]:
        return islice(self.movements(teller, self.account(teller), 1), self.count)

    def movements(self, teller: int, account: str, sign: int) -> Iterator[Movement]:
        """Without end."""
        rng = random.Random(f"{self.seed} {teller} {account}")  # noqa: RUF100, S311
        for number in count():
            ident = seeded_id(rng, EPOCH + timedelta(milliseconds=number))
            yield Movement(ident, account, sign * rng.randrange(100, 1_000))


# The ways.


def retrying(connection: Connection, meet: Hook, kind: type[Account] = Account) -> Move:
    """By Repository.execute: on a conflict it waits for a random while, loads again and decides again."""
    accounts = Repository(PostgresStore(connection), kind)

    def move(account: str, cents: int) -> int:
        def decide(found: Account) -> None:
            change(found, cents)
            meet(account)

        before = accounts.conflicts
        accounts.execute(account, decide)
        return accounts.conflicts - before

    return move


def in_rows(way: Callable[[Connection, str, int, Hook], None]) -> Callable[[Connection, Hook], Move]:
    """A way of `rows`, which knows no conflicts."""

    def open_(connection: Connection, meet: Hook) -> Move:
        def move(account: str, cents: int) -> int:
            way(connection, account, cents, lambda window: meet(account))
            return 0

        return move

    return open_


LOSING, OVERDRAWING, LOCKED = "row: read, change, write", "row: check, then change", "row: select for update"
ANY, EXPECTED, AT_ONCE = "events: any version", "events: expected version", "events: retry at once"
ONE_STREAM = "events: one stream for all"
WRONG_FOR_WITHDRAWALS = OVERDRAWING, ANY
WAYS: dict[str, Callable[[Connection, Hook], Move]] = {
    LOSING: in_rows(rows.read_change_write),
    OVERDRAWING: in_rows(rows.check_then_change),
    LOCKED: in_rows(rows.locked),
    ANY: regardless,
    EXPECTED: retrying,
    AT_ONCE: at_once,
    ONE_STREAM: partial(retrying, kind=InOneStream),
}


# The processes.


@dataclass(frozen=True)
class Case:
    """One piece of work for all tellers: `job` is `deposit` or `drain`. With a barrier their race is certain."""

    bank: Bank
    way: str
    job: Callable[[Bank, str, int, Hook], None]
    barrier: Barrier | None = None


class Meeting:
    """A hook: at the first change of every account all tellers have read before the first one writes.

    Not for a way that lets the others wait until it has written.
    """

    def __init__(self, barrier: Barrier) -> None:
        self.barrier = barrier
        self.met: set[str] = set()

    def __call__(self, account: str) -> None:
        if account not in self.met:
            self.met.add(account)
            self.barrier.wait(PATIENCE)


def serve(cases: Sequence[Case], teller: int) -> None:
    """A process: one case after the other, each begun together with the other tellers, at its gate."""
    with connect(cases[0].bank.conninfo) as connection:
        for number, case in enumerate(cases):
            pass_gate(connection, number)
            case.job(case.bank, case.way, teller, Meeting(case.barrier) if case.barrier else nowhere)
        pass_gate(connection, len(cases))


def deposit(bank: Bank, way: str, teller: int, meet: Hook = nowhere) -> None:
    """Do all the deposits of this teller."""
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        move = WAYS[way](connection, meet)
        for movement in bank.deposits(teller):
            attempt(recorder, move, movement)


def drain(bank: Bank, way: str, teller: int, meet: Hook = nowhere) -> None:
    """Withdraw from the first account until it refuses, then from the next one."""
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        move = WAYS[way](connection, meet)
        for number in range(bank.accounts):
            for movement in bank.movements(teller, bank.account(number), -1):
                if not attempt(recorder, move, movement):
                    break


def attempt(recorder: Recorder, move: Move, movement: Movement) -> bool:
    """Whether it was done; recorded as it is tried and as it ends. What is refused has certainly not happened."""
    recorder.record(Action.WRITE, Outcome.INVOKE, movement.id, key=movement.account)
    try:
        conflicts = move(movement.account, movement.cents)
    except (InvariantViolated, WrongExpectedVersion) as error:
        recorder.record(Action.WRITE, Outcome.FAIL, movement.id, key=movement.account, note=str(error))
        return False
    figures = {"conflicts": conflicts, "cents": movement.cents}
    recorder.record(Action.WRITE, Outcome.OK, movement.id, key=movement.account, figures=figures)
    return True


def open_accounts(bank: Bank, cents: int, kind: type[Account] = Account) -> None:
    """Every account with so much in it."""
    with connect(bank.conninfo) as connection:
        accounts = Repository(PostgresStore(connection), kind)
        for number in range(bank.accounts):
            account = accounts.load(bank.account(number))
            account.record("AccountOpened", owner="somebody")  # not `open`: one stream for all is never a new one
            account.deposit(cents)
            accounts.save(account)


# What they did, and what is there.


@dataclass(frozen=True)
class Result:
    """What a way left: the history, the balances that it keeps, and those that follow from what was acknowledged."""

    history: History
    balances: dict[str, int]
    told: dict[str, int]
    seconds: float

    @classmethod
    def of(cls, connection: Connection, bank: Bank, piece: "Work", opening: int) -> "Result":
        history = History.read(bank.history)
        seconds = (history.ops[-1].at - history.ops[0].at) / 1e9
        return cls(history, balances(connection, bank, piece), told(bank, history, opening), seconds)

    @property
    def vanished(self) -> int:
        """Cents that were acknowledged and are not there."""
        return sum(abs(self.told[account] - cents) for account, cents in self.balances.items())

    @property
    def done(self) -> int:
        return sum(1 for _ in self.history.of(Action.WRITE, Outcome.OK))

    @property
    def conflicts(self) -> int:
        return sum(op.figures["conflicts"] for op in self.history.of(Action.WRITE, Outcome.OK))

    @property
    def overdrawn(self) -> int:
        return sum(cents < 0 for cents in self.balances.values())


@dataclass(frozen=True)
class Work:
    """A way, whether it pays in or out, and on how many accounts: teller n works on account n modulo that."""

    way: str
    job: Callable[[Bank, str, int, Hook], None]
    accounts: int

    @property
    def kind(self) -> type[Account]:
        return InOneStream if self.way == ONE_STREAM else Account

    @property
    def collides(self) -> bool:
        """Whether its tellers are claimed to collide."""
        wrong = (LOSING, ONE_STREAM) if self.job is deposit else WRONG_FOR_WITHDRAWALS
        return self.way in wrong

    def __str__(self) -> str:
        return f"{self.job.__name__}, {self.way}, {self.accounts} account{'s' * (self.accounts > 1)}"


def open_bank(run: Run, conninfo: str, number: int, piece: Work, each: int, opening: int) -> Bank:
    """Every account as a stream and as a row."""
    bank = Bank(conninfo, run.history_file(f"writes-{number:02d}"), run.seed, each, piece.accounts, f"{number:02d}-")
    open_accounts(bank, opening, piece.kind)
    with connect(conninfo) as connection:
        for account in range(bank.accounts):
            rows.open_account(connection, bank.account(account), opening)
    return bank


def balances(connection: Connection, bank: Bank, piece: Work) -> dict[str, int]:
    """What the way itself says is in the accounts."""
    idents = [bank.account(number) for number in range(bank.accounts)]
    if piece.way.startswith("row"):
        return {ident: rows.balance(connection, ident) for ident in idents}
    accounts = Repository(PostgresStore(connection), piece.kind)
    return {ident: accounts.load(ident).balance for ident in idents}


def told(bank: Bank, history: History, opening: int) -> dict[str, int]:
    """What must be in the accounts by what the tellers were told had been done."""
    sums = {bank.account(number): opening for number in range(bank.accounts)}
    for op in history.of(Action.WRITE, Outcome.OK):
        sums[op.key] += op.figures["cents"]
    return sums


# Gates: processes take their time to start, and a race needs all of them in it.

_WAITING = """
select count(*) from pg_locks where locktype = 'advisory' and not granted
  and (classid::bigint::bit(32)::int, objid::bigint) = (hashtext(current_schema()), %s)
"""


class Gates:
    """Numbered gates of one schema, closed for as long as this connection lives or until they are opened."""

    def __init__(self, connection: Connection, count: int) -> None:
        self.connection = connection
        for number in range(count):
            connection.execute("select pg_advisory_lock(hashtext(current_schema()), %s)", [number])

    def await_all(self, number: int, waiting: int) -> None:
        """Until so many stand at the gate."""

        def all_there() -> bool:
            return self.connection.execute(_WAITING, [number]).fetchall() == [(waiting,)]

        until(f"{waiting} processes at gate {number}", all_there, PATIENCE)

    def open(self, number: int) -> None:
        self.connection.execute("select pg_advisory_unlock(hashtext(current_schema()), %s)", [number])


@contextmanager
def gate(conninfo: str, waiting: int) -> Iterator[None]:
    """Processes started in the block begin together at its end, when so many of them stand at gate 0."""
    with connect(conninfo) as connection:
        gates = Gates(connection, 1)
        yield
        gates.await_all(0, waiting)
        gates.open(0)


def pass_gate(connection: Connection, number: int = 0) -> None:
    """Wait until the gate is open; go through at once where there is none."""
    connection.execute("select pg_advisory_lock_shared(hashtext(current_schema()), %s)", [number])
    connection.execute("select pg_advisory_unlock_shared(hashtext(current_schema()), %s)", [number])
