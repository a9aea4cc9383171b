"""A shop per test: fresh tables, a fresh topic and a slot on the shared servers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from outbox.relay import wal
from outbox.stage.shop import Shop
from outbox.table import create

from shared.postgres import Connection, connect
from shared.servers.server import Endpoint


@pytest.fixture
def shop(schema: str, kafka: Endpoint, topic: Callable[..., str], tmp_path: Path) -> Shop:
    """Forty events of a seeded run, nothing of it written yet."""
    create(schema)
    return Shop(schema, kafka, topic("orders"), tmp_path / "history.jsonl", seed=7, count=40)


@pytest.fixture
def shop_with_slot(shop: Shop, unique: str) -> Iterator[Shop]:
    """The same, with a replication slot that sees all that is written from now on."""
    wal.set_up(shop.conninfo, unique, unique)
    yield replace(shop, slot=unique)
    wal.tear_down(shop.conninfo, unique)


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with connect(shop.conninfo) as opened:
        yield opened
