"""A polling publisher that sleeps until it is woken: LISTEN on one side, NOTIFY on the other.

A notification is a hint, and may be lost (nobody listens while the relay is down; the writer dies before it rings): the
relay polls all the same, once in `interval`. Two ways to ring. In the write transaction, by a trigger: popular, and it
costs every writer dearly, since a transaction that notifies holds one lock for the whole cluster while its commit is
flushed (PostgreSQL source, async.c, PreCommit_Notify). After the commit, without waiting for the disk: the lock is held
for no flush, and what is lost with a crash is a hint.
"""

import threading
import time
from dataclasses import dataclass

from psycopg import sql

from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import attempt
from shared.postgres import Connection

# One channel for each outbox: channels are known in the whole database.
CHANNEL = "'outbox_' || current_schema()"
# In one statement, which is one transaction: it does not wait for the disk, and the lock is not held meanwhile.
RING = f"select set_config('synchronous_commit', 'off', true), pg_notify({CHANNEL}, '')"
SLICE = 0.1  # seconds between two looks at whether to stop
PATIENCE = 1.0  # seconds that a relay waits for a ring before it polls all the same


@dataclass
class NotifiedPublisher(PollingPublisher):
    """Polls when it is rung for, and once in `interval` in case a ring was lost."""

    interval: float = PATIENCE

    def __post_init__(self) -> None:
        super().__post_init__()
        # Before the first poll: what is written between the two rings already.
        row = self.connection.execute(f"select {CHANNEL}").fetchone()
        self.connection.execute(sql.SQL("listen {}").format(sql.Identifier(row[0] if row else "")))

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if attempt(self.step, stop) < self.batch:
                self._sleep(stop)

    def _sleep(self, stop: threading.Event) -> None:
        """Until rung for; rings that came while we polled count."""
        end = time.monotonic() + self.interval
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            if any(True for _ in self.connection.notifies(timeout=min(left, SLICE), stop_after=1)):
                return


def ring(connection: Connection) -> None:
    """Wake the relay. Call it after the commit; a transaction around it would bring back what it avoids."""
    connection.execute(RING, prepare=True)
