"""Four services and no saga: calls in a row, the same under a lock, with and without a lease, and two-phase commit.

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
from saga.windows import CALLED, CallWindow, Hook, nowhere
from shared.errors import DeadlineExceeded, LabError
from shared.postgres import Connection
from shared.wait import until

LOCKS = "create table locks (name text primary key, holder text not null, ends_at timestamptz not null)"
TAKE = """
insert into locks values (%s, %s, coalesce(clock_timestamp() + make_interval(secs => %s), 'infinity'))
on conflict (name) do update set holder = excluded.holder, ends_at = excluded.ends_at
where locks.ends_at < clock_timestamp()
"""
GIVE_BACK = "delete from locks where name = %s and holder = %s"  # another's by now, if the lease has run out
ENDS = "select extract(epoch from min(ends_at))::float8 from locks where holder = %s"
PATIENCE = 0.05  # seconds for which an order waits for another's lock
PARTIES = tuple(SERVICE[action] for action in STEPS)


class CommitWindow(StrEnum):
    """Where the coordinator of a two-phase commit can die."""

    WORKED = "none has prepared"
    PREPARING = "two have prepared"
    PREPARED = "all have prepared"
    COMMITTING = "one has committed"
    COMMITTED = "all have committed"


PREPARED = {1: CommitWindow.PREPARING, 3: CommitWindow.PREPARED}  # by the number of the party, from 0
COMMITTED = {0: CommitWindow.COMMITTING, 3: CommitWindow.COMMITTED}


class Locked(LabError):
    """Another order holds what this one needs."""


def four_calls(services: Services, order: Order, at: Hook = nowhere) -> str:
    """One call after the other, until one is refused; returns why. Nobody undoes what was done before it."""
    at(CallWindow.BEFORE)
    for action in STEPS:
        if refused := services(Request(order.id, action, order)).refused:
            return refused
        at(CALLED[action])
    return ""


def locked_calls(
    locks: Connection, services: Services, order: Order, at: Hook = nowhere, lease: float | None = None
) -> str:
    """The same with a lock on customer and product around it. Raises Locked."""
    with lock(locks, sorted((order.customer, order.product)), order.id, lease):
        return four_calls(services, order, at)


@contextmanager
def lock(locks: Connection, names: Sequence[str], holder: str, lease: float | None = None) -> Iterator[None]:
    """A distributed lock: rows that their holder deletes again, or that end after `lease` seconds. Raises Locked."""
    with ExitStack() as held:
        for name in names:
            _take(locks, name, holder, lease)
            held.callback(locks.execute, GIVE_BACK, [name, holder])
        yield


def _take(locks: Connection, name: str, holder: str, lease: float | None) -> None:
    try:
        until(f"lock {name}", lambda: locks.execute(TAKE, [name, holder, lease]).rowcount, PATIENCE)
    except DeadlineExceeded as error:
        raise Locked(f"{holder}: {error}") from error


def lock_ends(locks: Connection, holder: str) -> float | None:
    """When the first of its locks ends by itself, in seconds of Unix time, maybe infinite; None: it holds none."""
    row = locks.execute(ENDS, [holder]).fetchone()
    return row[0] if row else None


def two_phase(shop: Shop, order: Order, at: Hook = nowhere, patience: float = PATIENCE) -> str:
    """All four services' transactions, prepared and then committed. Or none, if one refuses; returns why.

    Raises Locked, and nothing is done then.
    """
    with ExitStack() as things:
        parties = [things.enter_context(_party(shop.conninfos[name], patience)) for name in PARTIES]
        try:
            refused = _work(parties, order)
            if not refused:
                _prepare(parties, at)
        except LockNotAvailable as error:
            _roll_back(parties)
            raise Locked(f"{order.id}: {error}") from error
        if refused:
            _roll_back(parties)
        else:
            _commit(parties, at)
        return refused


def _work(parties: Sequence[Connection], order: Order) -> str:
    """Each service's part, in a transaction that is open when this returns; why one refuses."""
    for action, party in zip(STEPS, parties, strict=True):
        party.tpc_begin(party.xid(0, order.id, SERVICE[action]))
        if refused := EFFECTS[action](party, order):
            return refused
    return ""


def _prepare(parties: Sequence[Connection], at: Hook) -> None:
    at(CommitWindow.WORKED)
    for number, party in enumerate(parties):
        party.tpc_prepare()
        at(PREPARED.get(number, ""))


def _commit(parties: Sequence[Connection], at: Hook) -> None:
    for number, party in enumerate(parties):
        party.tpc_commit()
        at(COMMITTED.get(number, ""))


def _roll_back(parties: Sequence[Connection]) -> None:
    for party in parties:
        with suppress(psycopg.ProgrammingError):  # one that has not begun
            party.tpc_rollback()


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
