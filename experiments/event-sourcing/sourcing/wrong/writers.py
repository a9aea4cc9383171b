"""WRONG, or slow: tellers who write to the streams of accounts, to be compared with `Repository.execute`.

Each calls the hook, with the account's name, between its read and its write.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

from shared.postgres import Connection
from sourcing.errors import WrongExpectedVersion
from sourcing.event import Data
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.store import ANY
from sourcing.windows import Hook

# Moves cents on an account (below zero: out of it); returns how many conflicts it met, raises InvariantViolated.
Move = Callable[[str, int], int]


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


def at_once(connection: Connection, meet: Hook) -> Move:
    """Like `Repository.execute`, but on a conflict again without a pause."""
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
