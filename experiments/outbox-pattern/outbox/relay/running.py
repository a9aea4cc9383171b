"""A relay that outlives its servers: where one of them goes away, a new relay goes on from what the last one has noted.

A broker that is away is waited for by the relay itself (publisher.py). A session of Postgres' that was lost takes the
relay with it: what was under way is in doubt, and what kept a second relay out is gone. The next one begins
at the note, on a session of its own, and what was not noted comes twice.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg
from confluent_kafka import KafkaException

from outbox.relay import Relay
from shared.errors import CheckpointRefused, ConfigurationError, LabError, NotAdopted
from shared.postgres import Connection, connect

# What passes: also a second relay of the name that has not gone yet, and a stream that the server has ended.
AWAY = psycopg.OperationalError, psycopg.InterfaceError, KafkaException, LabError
# What no new relay mends: somebody has to look.
FOR_GOOD = NotAdopted, CheckpointRefused, ConfigurationError
AGAIN = 0.1  # seconds before the next attempt
log = logging.getLogger(__name__)


def keep_running(conninfo: str, make: Callable[[Connection], Relay], stop: threading.Event) -> None:
    """Relay until told to stop, by a relay of `make` on a session of its own, and by the next one when that has failed.

    Raises NotAdopted, CheckpointRefused or ConfigurationError at once, and what is no failure of a server.
    """
    while not stop.is_set():
        try:
            with connect(conninfo) as session, closing(make(session)) as relay:
                relay.run(stop)
        except FOR_GOOD:
            raise
        except AWAY as error:
            log.warning("the relay has ended, and a new one goes on: %s", error)
            stop.wait(AGAIN)
