"""The peer: the benchmark's account on the `eventsourcing` library 9.5, on the same Postgres, at its best.

As its documentation advises ("PostgreSQL module"): a connection pool no larger than what uses it, tables created once
beforehand and CREATE_TABLE=no in the processes, no snapshots. Event classes with an `apply` of their own are faster
than `@event` methods, whose arguments are looked up for every event; the transcoder uses the JSON library that our
store uses, which is several times faster than the default. The locking is the default: its database functions have no
lock, and readers miss events by them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Transcoder
from psycopg.conninfo import conninfo_to_dict


class PeerAccount(Aggregate):
    """As sourcing.account, without its checks: what is measured is loading."""

    balance: int
    movements: int

    class Opened(Aggregate.Created):
        owner: str
        balance: int
        movements: int

    class Deposited(Aggregate.Event):
        cents: int
        note: str

        def apply(self, aggregate: Any) -> None:
            aggregate.balance += self.cents
            aggregate.movements += 1

    def __init__(self, owner: str, balance: int = 0, movements: int = 0) -> None:
        self.owner, self.balance, self.movements = owner, balance, movements

    @classmethod
    def open(cls, ident: UUID, owner: str) -> "PeerAccount":
        return cls._create(cls.Opened, id=ident, owner=owner, balance=0, movements=0)


class FastTranscoder(Transcoder):
    """JSON by msgspec. The only value that JSON has no type for is the event's timestamp."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    def encode(self, obj: Any) -> bytes:
        return self._encode(obj)

    def decode(self, data: bytes) -> Any:
        state = self._decode(data)
        state["timestamp"] = datetime.fromisoformat(state["timestamp"])
        return state


PARTS = "dbname", "host", "port", "user", "password"  # of an address: what the library takes


class Accounts(Application[UUID]):
    name = "accounts"
    log_section_size = 5000

    def construct_transcoder(self) -> Transcoder:
        return FastTranscoder()

    def account(self, ident: UUID) -> PeerAccount:
        return cast(PeerAccount, self.repository.get(ident))


def open_application(url: str, schema: str, *, create: bool = False) -> Accounts:
    """The application on one connection. `create`: make its tables, by one process before all others."""
    server = conninfo_to_dict(url)
    parts = {f"POSTGRES_{name.upper()}": str(server.get(name, "")) for name in PARTS}
    return Accounts(
        {
            **parts,
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_SCHEMA": schema,
            "POSTGRES_POOL_SIZE": "1",
            "POSTGRES_MAX_OVERFLOW": "0",
            "CREATE_TABLE": "yes" if create else "no",
        }
    )


def events_of(ident: UUID, owner: str, deposits: Sequence[tuple[int, str]]) -> list[Any]:
    """A new account's domain events, made as its commands would make them, and not saved yet."""
    account = PeerAccount.open(ident, owner)
    for cents, note in deposits:
        account.trigger_event(PeerAccount.Deposited, cents=cents, note=note)
    return list(account.collect_events())
