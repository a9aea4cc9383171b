"""Snapshots as they go wrong: one of an older program, trusted; and one that was put in place of the events.

The account is the same one, years apart. Today's program may not let more than LIMIT be withdrawn without a visit to
the branch, so it sums up what was withdrawn. The events always said that; the state of then did not keep it.
"""

from typing import ClassVar

from sourcing.aggregate import Aggregate, InvariantViolated
from sourcing.event import Data
from sourcing.postgres import PostgresStore
from sourcing.shop.account import Account
from sourcing.snapshots import PostgresSnapshots
from sourcing.store import StreamMetadata

LIMIT = 50_000  # cents


class AccountToday(Account):
    """Knows what was withdrawn."""

    state_version: ClassVar[int] = 2

    def __init__(self, ident: str) -> None:
        super().__init__(ident)
        self.withdrawn = 0

    def withdraw(self, cents: int) -> None:
        if self.withdrawn + cents > LIMIT:
            raise InvariantViolated(f"account {self.id}: {self.withdrawn + cents} is above the limit of {LIMIT}")
        super().withdraw(cents)

    def apply(self, type_: str, data: Data) -> None:
        super().apply(type_, data)
        if type_ == "Withdrawn":
            self.withdrawn += data["cents"]

    def state(self) -> Data:
        return {**super().state(), "withdrawn": self.withdrawn}

    def restore(self, state: Data) -> None:
        super().restore(state)
        self.withdrawn = state.get("withdrawn", 0)  # meant well: "older snapshots do not have it"


class TrustingSnapshots(PostgresSnapshots):
    """Takes any snapshot for what it says: the state has no version, or nobody looks at it."""

    def restore(self, aggregate: Aggregate) -> None:
        query = "select version, state from snapshots where stream = %s"
        row = self.connection.execute(query, [aggregate.stream], binary=True).fetchone()
        if row and self._restored(aggregate, row[1]):
            aggregate.version = row[0]
            self.used += 1


def keep_the_snapshot_only(store: PostgresStore, snapshots: PostgresSnapshots, account: Account) -> int:
    """Snapshot the account, and remove the events that are in the snapshot. Returns how many went."""
    snapshots.take(account)
    store.set_metadata(account.stream, StreamMetadata(truncate_before=account.version + 1))
    return store.scavenge()
