"""WRONG, or slow: what is done to the streams of accounts in place of `Repository.execute`, with the same arguments."""

from collections.abc import Callable
from typing import Any

from sourcing.errors import WrongExpectedVersion
from sourcing.event import Data
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.store import ANY

Decide = Callable[[Account], None]


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


def at_once(accounts: Repository[Account], ident: str, decide: Decide) -> Account:
    """Like `Repository.execute`, but on a conflict again without a pause."""
    while True:
        decide(account := accounts.load(ident))
        try:
            accounts.save(account)
        except WrongExpectedVersion:
            accounts.conflicts += 1
        else:
            return account


def regardless(accounts: Repository[Account], ident: str, decide: Decide) -> Account:
    """WRONG where there is anything to decide: whatever was written since the load, the append goes through."""
    decide(account := accounts.load(ident))
    accounts.store.append(account.stream, account.uncommitted, ANY)
    return account
