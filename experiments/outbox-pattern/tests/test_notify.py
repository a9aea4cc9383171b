"""The relay that is woken: it hears rings, it does without them, and it misses none that came while it was at work."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from outbox.notify import (
    AFTER_COMMIT,
    IN_TRANSACTION,
    QUIET,
    NotifiedPublisher,
    Writers,
    compare_writers,
    relay_notified,
    ring,
    ring_in_transaction,
    serve_ringing,
)
from outbox.processes import Shop, write_backlog
from outbox.relay.publisher import Publisher
from outbox.table import insert_event, pending

from shared.checkers import check
from shared.history import History, Recorder
from shared.postgres import Connection, connect
from shared.tap import Tap
from shared.wait import until
from shared.worker import Worker

LONG = 600.0  # seconds: a relay that published within a test was not waiting for this


@pytest.fixture
def relaying(shop: Shop) -> "Callable[..., NotifiedPublisher]":
    def make(connection: Connection, **settings: object) -> NotifiedPublisher:
        return NotifiedPublisher(connection, Publisher(shop.broker), **settings)  # type: ignore[arg-type]

    return make


def test_it_wakes_when_the_write_transaction_rings(shop: Shop, connection: Connection, relaying: Maker) -> None:
    ring_in_transaction(shop.conninfo)
    with connect(shop.conninfo) as writer, running(relaying(connection, interval=LONG)) as relay:
        relay.polled(1)
        insert_event(writer, next(shop.events()), shop.topic)
        until("the event to be published", lambda: pending(writer) == 0)
