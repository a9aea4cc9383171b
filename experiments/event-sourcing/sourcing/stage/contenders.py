"""Who takes part in the benchmark: a bare insert, the event store, the eventsourcing library.

Each gets its events ready in memory before the clock starts, as its own library makes them. Measured is what it takes
from there to the commit: encoding, statement, round trips, locks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from shared.postgres import connect, in_schema
from sourcing import postgres
from sourcing.event import START, NewEvent, data_of, encode
from sourcing.postgres import PostgresStore
from sourcing.repository import Repository
from sourcing.shop.account import Account
from sourcing.stage import peer

NOTE = "x" * 120  # with the rest about 150 bytes of JSON, as a small event has
PAGE = 5000  # events per round trip of a reader

INSERT = """
insert into events (stream, version, type, schema_version, id, data, metadata) values (%s, %s, %s, %s, %s, %s, %s)
"""

Seen = tuple[str, int]  # (account, version)


class Kind(StrEnum):
    BARE = "bare insert"
    STORE = "store"
    PEER = "eventsourcing"


class Contender(Protocol):
    """Somebody who writes accounts' events into a table of its own, and reads them back."""

    def ready(self, account: UUID, count: int, batch: int) -> Sequence[Any]:
        """The first `count` events of a new account in memory, in batches as `append` takes them."""
        ...

    def append(self, batch: Any) -> object: ...

    def page(self, after: Any) -> tuple[Sequence[Seen], Any]:
        """Events after a place (None: the first), not decoded, and the place of the last one."""
        ...

    def load(self, account: UUID) -> int:
        """The balance of the aggregate, by replay."""
        ...

    def read_all(self) -> int:
        """Read and decode all events; returns how many."""
        ...


@dataclass(frozen=True)
class Table:
    """Where a contender's events lie: a schema of its own."""

    kind: Kind
    url: str
    schema: str

    @property
    def conninfo(self) -> str:
        return in_schema(self.url, self.schema)

    @property
    def name(self) -> str:
        return "accounts_events" if self.kind is Kind.PEER else "events"

    def create(self) -> None:
        if self.kind is Kind.PEER:
            peer.open_application(self.url, self.schema, create=True).close()
        else:
            postgres.create(self.conninfo)

    def open(self) -> Contender:
        makers: dict[Kind, type[Store | Peer]] = {Kind.BARE: Bare, Kind.STORE: Store, Kind.PEER: Peer}
        return makers[self.kind](self)


def deposits(count: int) -> list[tuple[int, str]]:
    """(cents, note) of `count` deposits."""
    return [(number % 997 + 1, NOTE) for number in range(count)]


def balance(count: int) -> int:
    """Of an account with `count` events, the first of which opens it."""
    return sum(cents for cents, _ in deposits(count - 1))


class Store:
    """The event store of this lab."""

    def __init__(self, table: Table) -> None:
        self.connection = connect(table.conninfo)
        self.store = PostgresStore(self.connection)
        self._accounts = Repository(self.store, Account)

    def ready(self, account: UUID, count: int, batch: int) -> Sequence[Any]:
        stream, events = f"account-{account}", new_events(count)
        return [(stream, events[first : first + batch], first) for first in range(0, count, batch)]

    def append(self, batch: Any) -> object:
        return self.store.append(*batch)

    def page(self, after: Any) -> tuple[Sequence[Seen], Any]:
        page = self.store.read_all(after or START, PAGE)
        seen = [(event.stream.removeprefix("account-"), event.version) for event in page]
        return seen, page[-1].place if page else after

    def load(self, account: UUID) -> int:
        return self._accounts.load(str(account)).balance

    def read_all(self) -> int:
        after, count = START, 0
        while page := self.store.read_all(after, PAGE):
            count += len([data_of(event) for event in page])
            after = page[-1].place
        return count


class Bare(Store):
    """The limit: the same row into the same table by nothing but an insert, its data encoded beforehand."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._cursor = self.connection.cursor()

    def ready(self, account: UUID, count: int, batch: int) -> Sequence[Any]:
        stream = f"account-{account}"
        numbered = enumerate(new_events(count), 1)
        return [(stream, version, e.type, e.schema_version, e.id, *encode(stream, e)) for version, e in numbered]

    def append(self, batch: Any) -> object:
        return self._cursor.execute(INSERT, batch, prepare=True)


class Peer:
    """The eventsourcing library's application."""

    def __init__(self, table: Table) -> None:
        self._application = peer.open_application(table.url, table.schema)

    def ready(self, account: UUID, count: int, batch: int) -> Sequence[Any]:
        events = peer.events_of(account, "somebody", deposits(count - 1))
        return [events[first : first + batch] for first in range(0, count, batch)]

    def append(self, batch: Any) -> object:
        return self._application.save(*batch)

    def page(self, after: Any) -> tuple[Sequence[Seen], Any]:
        page = self._application.recorder.select_notifications(after, PAGE, inclusive_of_start=False)
        seen = [(str(found.originator_id), found.originator_version) for found in page]
        return seen, page[-1].id if page else after

    def load(self, account: UUID) -> int:
        return self._application.account(account).balance

    def read_all(self) -> int:
        read, decode = self._application.recorder.select_notifications, self._application.mapper.to_domain_event
        after, count = 0, 0
        while page := read(after, PAGE, inclusive_of_start=False):
            count += len([decode(notification) for notification in page])
            after = page[-1].id
        return count


def new_events(count: int) -> list[NewEvent]:
    """An account's first events."""
    opened = NewEvent("AccountOpened", {"owner": "somebody"})
    return [opened, *(NewEvent("Deposited", {"cents": c, "note": note}) for c, note in deposits(count - 1))]
