"""Tellers who all move money at once, each in one of several ways, and what is there when they are done.

Each way calls a hook, with the account's name, between its read and its write.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from shared.experiment import Run, Scale
from shared.faults import Hook, nowhere
from shared.history import Action, History, Outcome, Recorder
from shared.postgres import Connection, connect
from sourcing.aggregate import InvariantViolated
from sourcing.errors import WrongExpectedVersion
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.stage.bank import PATIENCE, Bank, Gates, Movement, open_accounts, pass_gate
from sourcing.wrong import rows

# Moves cents on an account (below zero: out of it); returns how many conflicts it met, raises InvariantViolated.
Move = Callable[[str, int], int]


@dataclass(frozen=True)
class Rows:
    """Accounts as rows, changed by one of the functions of wrong/rows.py, which know no conflicts."""

    name: str
    change: Callable[[Connection, str, int, Hook], None]

    def open(self, connection: Connection, meet: Hook) -> Move:
        def move(account: str, cents: int) -> int:
            self.change(connection, account, cents, lambda window: meet(account))
            return 0

        return move

    def create(self, bank: Bank, cents: int) -> None:
        """Every account with so much in it."""
        with connect(bank.conninfo) as connection:
            for number in range(bank.accounts):
                rows.open_account(connection, bank.account(number), cents)

    def balance(self, connection: Connection, account: str) -> int:
        return rows.balance(connection, account)


@dataclass(frozen=True)
class Streams:
    """Accounts as aggregates of that kind, changed by `Repository.execute` or by what is compared with it."""

    name: str
    execute: Callable[[Repository[Account], str, Callable[[Account], None]], Account]
    kind: type[Account] = Account

    def open(self, connection: Connection, meet: Hook) -> Move:
        accounts = Repository(PostgresStore(connection), self.kind)

        def move(account: str, cents: int) -> int:
            def decide(found: Account) -> None:
                found.deposit(cents) if cents > 0 else found.withdraw(-cents)
                meet(account)

            before = accounts.conflicts
            self.execute(accounts, account, decide)
            return accounts.conflicts - before

        return move

    def create(self, bank: Bank, cents: int) -> None:
        """Every account with so much in it."""
        open_accounts(bank, cents, self.kind)

    def balance(self, connection: Connection, account: str) -> int:
        return Repository(PostgresStore(connection), self.kind).load(account).balance


Way = Rows | Streams
Job = Callable[[Bank, Way, int, Hook], None]  # for the teller of that number; `deposit` or `drain`


@dataclass(frozen=True)
class Work:
    """A way, whether it pays in or out, and on how many accounts: teller n works on account n modulo that.

    `wrong`: it is claimed that its tellers collide.
    """

    way: Way
    job: Job
    accounts: int
    wrong: bool = False

    def __str__(self) -> str:
        return f"{self.job.__name__}, {self.way.name}, {self.accounts} account{'s' * (self.accounts > 1)}"


def do_all(run: Run, todo: Sequence[Work], tellers: int, each: int, opening: int) -> "dict[Work, Result]":
    """All tellers at one piece of work after the other, each from a common start; at scale smoke they must collide."""
    create(conninfo := run.schema())
    with connect(conninfo) as connection:
        connection.execute(rows.SCHEMA)
        barrier = get_context("forkserver").Barrier(tellers)  # as the workers are started
        turns = []
        for number, work in enumerate(todo):
            history, prefix = run.history_file(f"writes-{number:02d}"), f"{number:02d}-"
            bank = Bank(conninfo, history, run.seed, each, work.accounts, prefix)
            work.way.create(bank, opening)
            turns.append(Turn(bank, work, barrier if run.scale is Scale.SMOKE and work.wrong else None))
        gates = Gates(connection, len(turns) + 1)
        for number in range(tellers):
            run.worker(f"teller-{number}", serve, turns, number)
        for number, work in enumerate(todo):
            gates.await_all(number, tellers)
            with run.step(str(work)):
                gates.open(number)
                gates.await_all(number + 1, tellers)
        return {turn.work: Result.of(connection, turn, opening) for turn in turns}


# The processes.


@dataclass(frozen=True)
class Turn:
    """A piece of work for all tellers, and where. With a barrier their race is certain."""

    bank: Bank
    work: Work
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


def serve(turns: Sequence[Turn], teller: int) -> None:
    """A process: one turn after the other, each begun together with the other tellers, at its gate."""
    with connect(turns[0].bank.conninfo) as connection:
        for number, turn in enumerate(turns):
            pass_gate(connection, number)
            turn.work.job(turn.bank, turn.work.way, teller, Meeting(turn.barrier) if turn.barrier else nowhere)
        pass_gate(connection, len(turns))


def deposit(bank: Bank, way: Way, teller: int, meet: Hook = nowhere) -> None:
    """Do all the deposits of this teller."""
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        move = way.open(connection, meet)
        for movement in bank.deposits(teller):
            attempt(recorder, move, movement)


def drain(bank: Bank, way: Way, teller: int, meet: Hook = nowhere) -> None:
    """Withdraw from the first account until it refuses, then from the next one."""
    with Recorder(bank.history, f"teller-{teller}") as recorder, connect(bank.conninfo) as connection:
        move = way.open(connection, meet)
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


# What they did, and what is there.


@dataclass(frozen=True)
class Result:
    """What a way left: the history, the balances that it keeps, and those that follow from what was acknowledged."""

    history: History
    balances: dict[str, int]
    told: dict[str, int]
    seconds: float

    @classmethod
    def of(cls, connection: Connection, turn: Turn, opening: int) -> "Result":
        history, idents = History.read(turn.bank.history), map(turn.bank.account, range(turn.bank.accounts))
        balances = {ident: turn.work.way.balance(connection, ident) for ident in idents}
        told = dict.fromkeys(balances, opening)
        for op in history.of(Action.WRITE, Outcome.OK):
            told[op.key] += op.figures["cents"]
        return cls(history, balances, told, (history.ops[-1].at - history.ops[0].at) / 1e9)

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
