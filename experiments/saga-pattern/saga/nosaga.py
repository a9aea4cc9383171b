"""Four services and no saga: calls in a row, the same under a lock, and two-phase commit.

Each takes a hook that is called between any two steps, where the process may die. For what two-phase commit does in
Postgres see its documentation of PREPARE TRANSACTION: a prepared transaction belongs to no session, keeps its locks,
survives a crash of the server, and ends by COMMIT PREPARED or ROLLBACK PREPARED and nothing else.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum

import psycopg
from psycopg.errors import LockNotAvailable

from saga.order import SERVICE, STEPS, Order, Request
from saga.services.effects import EFFECTS
from saga.services.shop import Services, Shop
from shared.errors import DeadlineExceeded, LabError
from shared.faults import Hook, nowhere
from shared.postgres import Connection
from shared.wait import until

LOCKS = "create table locks (name text primary key, holder text not null)"
TAKE = "insert into locks values (%s, %s) on conflict do nothing"
PATIENCE = 0.05  # seconds for which an order waits for another's lock
PARTIES = tuple(SERVICE[action] for action in STEPS)


class CallWindow(StrEnum):
    """Where a process can die that makes four calls."""

    BEFORE = "before place-order"
    PLACED = "after place-order"
    RESERVED = "after reserve-stock"
    CHARGED = "after charge-payment"
    SHIPPED = "after ship-order"


class CommitWindow(StrEnum):
    """Where the coordinator of a two-phase commit can die."""

    WORKED = "none has prepared"
    PREPARING = "two have prepared"
    PREPARED = "all have prepared"
    COMMITTING = "one has committed"
    COMMITTED = "all have committed"


AFTER = dict(zip(STEPS, list(CallWindow)[1:], strict=True))
PREPARED = {1: CommitWindow.PREPARING, 3: CommitWindow.PREPARED}  # by the number of the party, from 0
COMMITTED = {0: CommitWindow.COMMITTING, 3: CommitWindow.COMMITTED}


class Locked(LabError):
    """Another order holds what this one needs."""


def four_calls(services: Services, order: Order, at: Hook = nowhere) -> None:
    """One call after the other, as if nothing could happen between."""
    at(CallWindow.BEFORE)
    for action in STEPS:
        services(Request(order.id, action, order))
        at(AFTER[action])


def locked_calls(locks: Connection, services: Services, order: Order, at: Hook = nowhere) -> None:
    """The same with a lock on customer and product around it. Raises Locked."""
    with lock(locks, sorted((order.customer, order.product)), order.id):
        four_calls(services, order, at)


@contextmanager
def lock(locks: Connection, names: Sequence[str], holder: str) -> Iterator[None]:
    """A distributed lock: rows that whoever made them deletes again. Raises Locked."""
    with ExitStack() as held:
        for name in names:
            _take(locks, name, holder)
            held.callback(locks.execute, "delete from locks where name = %s", [name])
        yield


def _take(locks: Connection, name: str, holder: str) -> None:
    try:
        until(f"lock {name}", lambda: locks.execute(TAKE, [name, holder]).rowcount, PATIENCE)
    except DeadlineExceeded as error:
        raise Locked(f"{holder}: {error}") from error


def two_phase(shop: Shop, order: Order, at: Hook = nowhere, patience: float = PATIENCE) -> None:
    """All four services' transactions, prepared and then committed. Raises Locked, and nothing is done then."""
    with ExitStack() as things:
        parties = [things.enter_context(_party(shop.conninfos[name], patience)) for name in PARTIES]
        try:
            for action, party in zip(STEPS, parties, strict=True):
                party.tpc_begin(party.xid(0, order.id, SERVICE[action]))
                EFFECTS[action](party, order)
            at(CommitWindow.WORKED)
            for number, party in enumerate(parties):
                party.tpc_prepare()
                at(PREPARED.get(number, ""))
        except LockNotAvailable as error:
            for party in parties:
                with suppress(psycopg.ProgrammingError):  # one that has not begun
                    party.tpc_rollback()
            raise Locked(f"{order.id}: {error}") from error
        for number, party in enumerate(parties):
            party.tpc_commit()
            at(COMMITTED.get(number, ""))


@contextmanager
def _party(conninfo: str, patience: float) -> Iterator[Connection]:
    """A session that takes part; it waits so long for a lock, or for ever where that is 0."""
    connection = psycopg.connect(conninfo)
    try:
        connection.execute("select set_config('lock_timeout', %s, false)", [f"{patience * 1000:.0f}ms"])
        connection.commit()
        yield connection
    finally:
        connection.close()


def in_doubt(shop: Shop) -> list[tuple[str, str]]:
    """(order, service) of every prepared transaction: what the operator finds."""
    with psycopg.connect(shop.conninfos["orders"]) as connection:
        return sorted((xid.gtrid, xid.bqual or "") for xid in connection.tpc_recover())


def resolve(shop: Shop, order: str, commit: bool) -> int:
    """The operator's decision about an order, by hand; returns how many prepared transactions it ended."""
    with psycopg.connect(shop.conninfos["orders"]) as connection:
        found = [xid for xid in connection.tpc_recover() if xid.gtrid == order]
        for xid in found:
            (connection.tpc_commit if commit else connection.tpc_rollback)(xid)
    return len(found)
