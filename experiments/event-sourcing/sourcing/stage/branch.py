"""A branch of the bank: accounts of an older program and their snapshots, met by the program of today."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.experiment import Run
from shared.postgres import connect
from sourcing.aggregate import InvariantViolated
from sourcing.postgres import PostgresStore, create
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.snapshots import SCHEMA, EveryEvents, PostgresSnapshots
from sourcing.wrong.trusting import LIMIT, AccountToday


@dataclass(frozen=True)
class Branch:
    """Its accounts, as events and as snapshots."""

    store: PostgresStore

    def withdraw_nearly_all(self, ident: str) -> PostgresSnapshots:
        """An account of the old program, from which nearly the LIMIT was withdrawn, and its snapshot."""
        kept = PostgresSnapshots(self.store.connection, EveryEvents(3))
        old = Repository(self.store, Account, snapshots=kept)
        old.execute(ident, lambda account: account.open("Ada"))
        old.execute(ident, lambda account: account.deposit(4 * LIMIT))
        old.execute(ident, lambda account: account.withdraw(LIMIT - 1_000))
        return kept

    def today(self, kept: PostgresSnapshots | None = None) -> Repository[AccountToday]:
        """The accounts as today's program has them, from these snapshots or from all events."""
        return Repository(self.store, AccountToday, snapshots=kept)

    def withdraw_again(self, ident: str, kept: PostgresSnapshots) -> bool:
        """Whether today's program lets half the LIMIT be withdrawn on top."""
        try:
            self.today(kept).execute(ident, lambda account: account.withdraw(LIMIT // 2))
        except InvariantViolated:
            return False
        return True


@contextmanager
def open_branch(run: Run) -> Iterator[Branch]:
    create(conninfo := run.schema())
    with connect(conninfo) as connection:
        connection.execute(SCHEMA.read_text())
        yield Branch(PostgresStore(connection))
