"""Rows of which no event can be made, as they come about by hand or by mistake, and consumers that meet them."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import uuid4

from confluent_kafka import Message

from outbox import deadletters
from outbox.consumer import Consumer, with_inbox
from outbox.deadletters import DeadLetter
from outbox.guard import install
from outbox.relay.debezium import Connector
from outbox.stage.connectors import debezium
from outbox.stage.measures import BACKLOG
from outbox.stage.payments import SCHEMA, accounts, consume, due
from outbox.stage.shop import Shop, watched
from outbox.table import create, insert_event
from shared import kafka
from shared.errors import StartFailed
from shared.event import Event
from shared.postgres import Connection, connect
from shared.run import Run
from shared.tap import Tap
from shared.worker import Worker

INSERT = "insert into outbox (id, aggregate_type, aggregate_id, payload, type, source) values (%s, %s, %s, %s, %s, %s)"
FOREIGN = {  # what another program's producer may write
    "a Latin-1 byte": b'{"customer":"M\xfcller","cents":1}',
    "nested 5,000 deep": b"[" * 5_000 + b"]" * 5_000,
    "NaN": b'{"customer":"customer-1","cents":NaN}',
    "half a surrogate pair": b'{"customer":"\\ud83d","cents":1}',
    "no data": b"",
}
ROUNDS = 5


class Bad(StrEnum):
    """What is wrong with the row."""

    UNKNOWN_TYPE = "unknown aggregate type"
    NOT_JSON = "payload not JSON"
    NUL_BYTE = "NUL byte"
    MISSING_FIELDS = "missing fields"
    TOO_LARGE = "too large"


def write_bad_rows(
    connection: Connection, topic: str, kinds: Iterable[Bad] = tuple(Bad), unknown: str = "no.such.type"
) -> dict[Bad, str]:
    """Insert one row of each kind, all but the unknown for the topic; returns their event ids."""
    rows = {
        Bad.UNKNOWN_TYPE: (unknown, "a", b"{}", "t", "/s"),
        Bad.NOT_JSON: (topic, "a", b"not json", "t", "/s"),
        Bad.NUL_BYTE: (topic, "a", b'{"name":"\x00"}', "t", "/s"),
        Bad.MISSING_FIELDS: (topic, "a", b"{}", "", ""),
        Bad.TOO_LARGE: (topic, "a", b'"' + b"x" * 2_000_000 + b'"', "t", "/s"),
    }
    ids = {kind: str(uuid4()) for kind in kinds}
    for kind, ident in ids.items():
        connection.execute(INSERT, [ident, *rows[kind]])
    return ids


@dataclass(frozen=True)
class Opened:
    """A shop, a running connector on its outbox, and a consumer of its topic."""

    shop: Shop
    connector: Connector
    tap: Tap


@contextmanager
def opened(run: Run, name: str, count: int, settings: dict[str, str] | None = None) -> Iterator[Opened]:
    """Gone at the end of the block. `settings` are the connector's."""
    shop = Shop.open(run, name, count)
    with debezium(run, shop, settings=settings) as connector, watched(run, shop) as tap:
        yield Opened(shop, connector, tap)


def write_bare(connection: Connection, topic: str) -> Event:
    """An event with nothing that it can do without."""
    event = Event("shop.order.viewed", "/shop/orders", "order-1")
    insert_event(connection, event, topic)
    return event


def write_foreign(shop: Shop) -> None:
    """Another program's messages into the shop's topic."""
    producer = kafka.producer(shop.broker)
    for number, value in enumerate(FOREIGN.values()):
        headers = Event(type="t", source="/elsewhere", subject=f"order-{number}").to_kafka().headers
        producer.produce(shop.topic, value, f"order-{number}".encode(), headers=dict(headers))
    producer.flush()


@dataclass(frozen=True)
class Met:
    """What a consumer, started twice, made of a topic with bad messages."""

    ended: list[bool]  # at each start, whether it ended by an error, and not because it had read everything
    exact: bool  # whether every account is right
    letters: list[DeadLetter]  # what it kept


def meet(run: Run, shop: Shop, ways: Iterable[Callable[[Consumer, Message], None]]) -> list[Met]:
    """The consumers, which differ in what they do with a bad message, read the topic; each is started twice."""
    names = {way.__name__: way for way in ways}
    homes = {name: run.schema(f"_{name}") for name in names}
    for home in homes.values():
        with connect(home) as connection:
            connection.execute(SCHEMA)
    ended: dict[str, list[bool]] = {name: [] for name in names}
    for turn in (1, 2):
        readers = {name: replace(shop, history=run.history_file(name)) for name in names}
        workers = {
            name: run.worker(f"{name}-{turn}", consume, readers[name], with_inbox, conninfo=homes[name], receive=way)
            for name, way in names.items()
        }
        for name, worker in workers.items():
            ended[name].append(_ends(worker))
    return [Met(ended[name], accounts(home) == due(shop), _letters(shop, name, home)) for name, home in homes.items()]


def _ends(worker: Worker) -> bool:
    try:
        worker.wait()
    except StartFailed:
        return True
    return False


def _letters(shop: Shop, name: str, home: str) -> list[DeadLetter]:
    with connect(home) as connection:
        return deadletters.kept(connection, f"{shop.topic}.{name}")


def time_inserts(run: Run, count: int) -> tuple[list[float], list[float]]:
    """Microseconds that Postgres takes to insert an event of 200 bytes, without and with the guard, by turns."""
    homes = run.schema("_plain"), run.schema("_priced")
    took: tuple[list[float], list[float]] = [], []
    for conninfo in homes:
        create(conninfo)
    with connect(homes[0]) as plain, connect(homes[1]) as guarded:
        install(guarded, ["orders"])
        for _ in range(ROUNDS):
            for samples, connection in zip(took, (plain, guarded), strict=True):
                began = time.perf_counter()
                connection.execute(BACKLOG, {"topic": "orders", "first": 1, "last": count}, prepare=True)
                samples.append((time.perf_counter() - began) / count * 1e6)
    return took
