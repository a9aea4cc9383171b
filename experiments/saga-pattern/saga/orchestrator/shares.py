"""Which worker reads which replies: its own share, and the shares of workers that are not there.

A worker is there while its session holds an advisory lock on its number: the lock ends with the process, however that
ends (PostgreSQL documentation, "Explicit Locking", Advisory Locks). The lowest number that is there stands in for all
that are not, and holds a lock that says so. For a moment two may read the same share. That does no harm: an answer
that comes again changes nothing, and places never move back.
"""

import time

from saga.orchestrator.store import Store
from saga.transport import Inlet
from shared.postgres import Connection

LOOK = 0.5  # seconds between two looks at who is there
# Shared: one that is started anew does not wait for the session of one that was killed.
ENTER = "select pg_advisory_lock_shared('sagas'::regclass::oid::int, %s)"
STAND_IN = "select pg_advisory_lock_shared('offsets'::regclass::oid::int, %s)"
GIVE_BACK = "select pg_advisory_unlock_shared('offsets'::regclass::oid::int, %s)"
HELD = """
select distinct objid::int from pg_locks where locktype = 'advisory' and granted and objsubid = 2
 and classid = %s::regclass::oid and database = (select oid from pg_database where datname = current_database())
"""


class Shares:
    """The shares of worker `number`, from 0, of so many as the inlet has sharers."""

    def __init__(self, store: Store, inlet: Inlet, number: int) -> None:
        self.store = store
        self.inlet = inlet
        self.number = number
        self.mine = {number}
        self._looked = 0.0
        store.connection.execute(ENTER, [number])

    def look(self) -> set[int]:
        """Take over from those that are gone, and give back to those that came, at most every LOOK; what is read."""
        if time.monotonic() - self._looked < LOOK:
            return self.mine
        self._looked = time.monotonic()
        here = there(self.store.connection)
        gone = set(range(self.inlet.sharers)) - here
        mine = {self.number} | (gone if self.number == min(here) else set())
        if mine != self.mine:
            self._take(mine)
        return self.mine

    def _take(self, mine: set[int]) -> None:
        """Whoever sees no lock on a share can be sure that nobody reads it in another's place."""
        connection = self.store.connection
        for share in mine - self.mine:
            connection.execute(STAND_IN, [share])
        self.inlet.take(mine, self.store.offsets())
        for share in self.mine - mine:
            connection.execute(GIVE_BACK, [share])
        self.mine = mine


def there(connection: Connection) -> set[int]:
    """The numbers of the workers that are there."""
    return _held(connection, "sagas")


def stood_in_for(connection: Connection) -> set[int]:
    """The numbers of the workers in whose place another reads: of those that are gone, or have just come."""
    return _held(connection, "offsets")


def each_reads_its_own(connection: Connection, workers: int) -> bool:
    """Whether all of so many workers are there, and the others have noticed."""
    return there(connection) == set(range(workers)) and not stood_in_for(connection)


def _held(connection: Connection, table: str) -> set[int]:
    """The numbers on which somebody holds a lock in the name of this table."""
    return {number for (number,) in connection.execute(HELD, [table]).fetchall()}
