"""Relays: what moves events from the outbox to the broker.

| relay | reads | remembers | order |
|---|---|---|---|
| PollingPublisher | in batches | marks published_at | kept by one relay; a second one waits at the first one's rows |
| NotifiedPublisher | the same, woken by NOTIFY | marks published_at | as above |
| CursorRelay | by snapshot windows (reading.py) | one row: how far | kept; refuses a second one |
| WalRelay | the log, by logical replication | the slot, how far | kept: commit order; the slot refuses a second one |

`keep_running` (running.py) is the loop around one of them, for a session that is lost. Debezium (debezium.py) is
another, in a process of its own. In ../wrong are those that lose the order or events: that delete what they lock and
skip what others have locked, that mark first, and that read by positions or by pairs.
"""

import threading
from typing import Protocol


class Relay(Protocol):
    """What those of ours have in common."""

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
