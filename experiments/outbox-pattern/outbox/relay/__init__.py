"""Relays: what moves events from the outbox to the broker. Five of them, from the tutorial's to the fastest.

| relay | reads | remembers | order |
|---|---|---|---|
| SkipLockedRelay | row by row, FOR UPDATE SKIP LOCKED | deletes the row | lost between two relays |
| BatchDeleteRelay | in batches, likewise | deletes the batch | lost between two relays |
| PollingPublisher | in batches | marks published_at | kept by one relay; a second one waits at the first one's rows |
| CursorRelay | snapshot windows | one row: which window, how far in it | kept; refuses a second one |
| WalRelay | the log, by logical replication | the slot, how far | kept: commit order; the slot refuses a second one |

Debezium (debezium.py) is the sixth, in a process of its own.
"""

import threading
from typing import Protocol


class Relay(Protocol):
    """What the five have in common."""

    def step(self) -> int:
        """Move what there is, up to a batch; returns how many events. All moved events are acknowledged and noted.

        Raises KafkaException where the broker is away or takes not all; the next step begins at the last note again.
        """
        ...

    def run(self, stop: threading.Event) -> None:
        """Relay until told to stop. A broker that is away is waited for; a lost session of Postgres' is raised."""
        ...

    def close(self) -> None:
        """Let go of the broker, and of what keeps a second one out. Its `connection` is its owner's to close."""
        ...
