"""What worker processes run: tellers of a bank, who all move money at once, each in one of several ways.

`retrying` is the Repository's. The others are there to be measured against it: the rows of `rows`, a retry without a
pause, an append under ANY, and one stream for all accounts. Each calls the hook of its `Meeting`, with the account's
name, between its read and its write.
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
from typing import Any

from shared.faults import Hook, nowhere
from shared.history import Action, Outcome, Recorder
from shared.postgres import Connection, connect
from shared.wait import until
from shared.workload import seeded_id
from sourcing.aggregate import InvariantViolated
from sourcing.errors import WrongExpectedVersion
from sourcing.event import Data
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.store import ANY
from sourcing.wrong import rows

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# Moves cents on an account (below zero: out of it); returns how many conflicts it met, raises InvariantViolated.
Move = Callable[[str, int], int]
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
        rng = random.Random(f"{self.seed} {teller} {account}")  # noqa: S311
        for number in count():
            ident = seeded_id(rng, EPOCH + timedelta(milliseconds=number))
            yield Movement(ident, account, sign * rng.randrange(100, 1_000))


# The ways.


class InOneStream(Account):
    """WRONG: all accounts (of one prefix) in one stream. Whoever writes to one of them is in the way of all."""

    @property
    def stream(self) -> str:
        return f"accounts-{self.id.rpartition('-')[0]}"

    def record(self, type_: str, **data: Any) -> None:
        super().record(type_, account=self.id, **data)

    def apply(self, type_: str, data: Data) -> None:
        if data["account"] == self.id:
            super().apply(type_, data)


def change(account: Account, cents: int) -> None:
    account.deposit(cents) if cents > 0 else account.withdraw(-cents)


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


def at_once(connection: Connection, meet: Hook) -> Move:
    """Likewise, but again without a pause."""
    accounts = Repository(PostgresStore(connection), Account)

    def move(account: str, cents: int) -> int:
        for conflicts in count():
            change(found := accounts.load(account), cents)
            meet(account)
            try:
                accounts.save(found)
                return conflicts
            except WrongExpectedVersion:
                continue
        raise AssertionError("count() has no end")

    return move


def regardless(connection: Connection, meet: Hook) -> Move:
    """WRONG where there is anything to decide: whatever was written since the load, the append goes through."""
    store = PostgresStore(connection)
    accounts = Repository(store, Account)

    def move(account: str, cents: int) -> int:
        change(found := accounts.load(account), cents)
        meet(account)
        store.append(found.stream, found.uncommitted, ANY)
        return 0

    return move


def in_rows(way: Callable[[Connection, str, int, Hook], None]) -> Callable[[Connection, Hook], Move]:
    """A way of `rows`, which knows no conflicts."""

    def open_(connection: Connection, meet: Hook) -> Move:
        def move(account: str, cents: int) -> int:
            way(connection, account, cents, lambda window: meet(account))
            return 0

        return move

    return open_


WAYS: dict[str, Callable[[Connection, Hook], Move]] = {
    "row: read, change, write": in_rows(rows.read_change_write),
    "row: check, then change": in_rows(rows.check_then_change),
    "row: select for update": in_rows(rows.locked),
    "events: any version": regardless,
    "events: expected version": retrying,
    "events: retry at once": at_once,
    "events: one stream for all": partial(retrying, kind=InOneStream),
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
