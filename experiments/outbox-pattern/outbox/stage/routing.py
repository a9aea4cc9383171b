"""Debezium beside the polling publisher, on outboxes of one kind: what each sends, asks of the table, and takes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from outbox.relay.debezium import Connector
from outbox.relay.polling import PollingPublisher
from outbox.relay.publisher import Publisher
from outbox.stage.measuring import idle_scans, scans
from outbox.stage.processes import Shop, relay, serve
from outbox.stage.shops import watched
from shared import kafka
from shared.postgres import connect
from shared.run import Run

POLL = 0.1  # seconds between polls of the publisher that Debezium is compared with
BATCH = 500

Messages = dict[bytes, tuple[object, ...]]


@contextmanager
def debezium(run: Run, name: str, table: str = "outbox", **settings: str) -> Iterator[Connector]:
    """A running connector on the outbox of a schema made by open_shop, gone at the end of the block."""
    connect_at, database, schema = run.endpoints["connect"], run.endpoints["postgres"], f"{run.name}_{name}"
    dotted = {key.replace("_", "."): value for key, value in settings.items()}
    with Connector(connect_at, database, schema, schema, table, dotted).running() as made:
        yield made


def drain(shop: Shop, prefix: str) -> None:
    """Empty the outbox with the polling publisher, to topics whose names begin with the prefix."""
    with connect(shop.conninfo) as connection:
        relaying = PollingPublisher(connection, Publisher(shop.broker, prefix))
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
    ready = run.folder / "idle.ready"
    at_work = relay, shop, PollingPublisher, BATCH, POLL, None, "relay", True, ready
    asked, took = idle_scans(shop.conninfo, ready, seconds, lambda: run.worker("relay", *at_work))
    return asked / took


def scans_by_debezium(run: Run, shop: Shop, seconds: float) -> float:
    """The same, by a connector on the shop's schema."""
    before = scans(shop.conninfo)
    with debezium(run, shop.history.stem):
        time.sleep(seconds)
    return (scans(shop.conninfo) - before) / seconds


def paced(run: Run, shop: Shop, by_debezium: bool) -> None:
    """The shop's events at its rate, relayed and consumed: the history has the times."""
    with watched(run, shop) as tap, ExitStack() as relays:
        if by_debezium:
            relays.enter_context(debezium(run, shop.history.stem))
        else:
            relays.enter_context(run.worker("relay", relay, shop, PollingPublisher, BATCH, POLL))
        run.worker("service", serve, shop, "outbox").wait(120)
        tap.wait_for(shop.count)
