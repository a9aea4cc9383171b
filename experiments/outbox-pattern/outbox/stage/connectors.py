"""Debezium on the outbox of a shop (03, 06, 11, 12), and the polling publisher that it is compared with (03)."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager

from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.relay.wal import lag
from outbox.service import write_with_outbox
from outbox.stage.measures import idle_scans, scans
from outbox.stage.shop import Shop, relay, serve, watched
from shared import kafka
from shared.errors import DeadlineExceeded
from shared.postgres import connect
from shared.run import Run, slug
from shared.wait import until

POLL = 0.1  # seconds between polls of the publisher that Debezium is compared with
BUSY = "create table elsewhere as select i, md5(i::text) from generate_series(1, 40000) i"  # some 4 MB of log

Messages = dict[bytes, tuple[object, ...]]
Relaying = Callable[[Run, Shop], AbstractContextManager[object]]


@contextmanager
def debezium(
    run: Run, shop: Shop, table: str = "outbox", settings: Mapping[str, str] | None = None
) -> Iterator[Connector]:
    """A running connector on the shop's outbox, gone at the end of the block."""
    schema = f"{run.name}_{slug(shop.history.stem)}"
    with Connector(
        run.endpoints["connect"], run.endpoints["postgres"], schema, schema, table, settings
    ).running() as it:
        yield it


def polling(run: Run, shop: Shop) -> AbstractContextManager[object]:
    """The polling publisher at work on it."""
    return run.worker("relay", relay, shop, PollingPublisher, interval=POLL)


def drain(shop: Shop, prefix: str) -> None:
    """Empty the outbox with the polling publisher, to topics whose names begin with the prefix."""
    with (
        connect(shop.conninfo) as connection,
        closing(PollingPublisher(connection, Publisher(shop.broker, prefix))) as relaying,
    ):
        while relaying.step():
            continue


def messages(shop: Shop, topic: str) -> Messages:
    """Event id -> (key, value, CloudEvents headers, partition) of every record of the topic."""
    found: Messages = {}
    for message in kafka.read_all(shop.broker, topic):
        headers = {name: value for name, value in kafka.headers(message).items() if value and _is_ours(name)}
        found[headers["ce_id"]] = (message.key(), message.value(), headers, message.partition())
    return found


def _is_ours(header: str) -> bool:
    return header.startswith("ce_") or header == "content-type"


def scans_by_polling(run: Run, shop: Shop, seconds: float) -> float:
    """Scans of an empty outbox per second."""
    asked, took = idle_scans(
        shop.conninfo, seconds, lambda: run.worker("relay", relay, shop, PollingPublisher, interval=POLL)
    )
    return asked / took


def scans_by_debezium(run: Run, shop: Shop, seconds: float) -> float:
    """The same, by a connector on the shop's schema."""
    before = scans(shop.conninfo)
    with debezium(run, shop):
        time.sleep(seconds)
    return (scans(shop.conninfo) - before) / seconds


def paced(run: Run, shop: Shop, relaying: Relaying) -> None:
    """The shop's events at its rate, relayed and consumed: the history has the times."""
    with watched(run, shop) as tap, relaying(run, shop):
        run.worker("service", serve, shop, write_with_outbox).wait(120)
        tap.wait_for(shop.count)


def heartbeat(topic: str, milliseconds: int) -> dict[str, str]:
    """Settings of one that writes into the log: Debezium confirms a position when it has seen an event behind it.

    A logical message needs no table. The heartbeat's own records are no payload of bytes, and under ByteArrayConverter
    alone the first of them kills the task: they get JSON.
    """
    return {
        "heartbeat.interval.ms": str(milliseconds),
        "heartbeat.action.query": "select pg_logical_emit_message(true, 'heartbeat', '')",
        "topic.heartbeat.prefix": topic,
        "topic.creation.default.partitions": "1",
        "topic.creation.default.replication.factor": "1",
        "message.prefix.exclude.list": "heartbeat",
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "value.converter.delegate.converter.type": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.delegate.converter.type.schemas.enable": "false",
    }


def lag_after_others(shop: Shop, connector: Connector, seconds: float) -> int:
    """Bytes that the slot is behind after others have written, given so much time to catch up."""
    with connect(shop.conninfo) as connection:
        connection.execute(BUSY)
        try:
            until("the slot to catch up", lambda: lag(connection, connector.name) < 100_000, seconds)
        except DeadlineExceeded:
            return lag(connection, connector.name)
        return lag(connection, connector.name)
