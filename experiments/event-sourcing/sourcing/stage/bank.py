"""A bank: the seeded work of its tellers, its accounts as streams, and the gates at which its processes meet."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path

from shared.postgres import Connection, connect
from shared.wait import until
from shared.workload import seeded_id
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account

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
        rng = random.Random(f"{self.seed} {teller} {account}")
        for number in count():
            ident = seeded_id(rng, EPOCH + timedelta(milliseconds=number))
            yield Movement(ident, account, sign * rng.randrange(100, 1_000))


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
