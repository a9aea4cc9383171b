"""What every relay sends, Debezium among them, is the same message, and CloudEvents to the letter."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Message
from outbox.relay.debezium import Connector
from outbox.relay.message import COLUMNS, OutboxRow, headers
from outbox.relay.wal import WalRelay
from outbox.stage.shop import RELAYS, RelayClass, Shop, make_relay
from outbox.table import INSERT_EVENT, outbox_values

from shared import kafka
from shared.event import Event, new_id
from shared.postgres import Connection
from shared.servers.server import Endpoint
from shared.wait import until

Sent = tuple[bytes | None, bytes | None, dict[str, bytes]]


def write(shop: Shop, connection: Connection) -> dict[str, Event]:
    """Events with all that they can have, with nothing that they can do without, and with some of it; by id."""
    event = next(shop.events())
    full = replace(event, sequence=10, correlation_id="basket-1", causation_id="command-1")
    bare = {"data": None, "sequence": 0, "correlation_id": "", "causation_id": ""}
    some = [replace(full, id=new_id(), **{name: value}) for name, value in bare.items()]  # type: ignore[arg-type]
    events = [full, *some, replace(full, id=new_id(), **bare)]  # type: ignore[arg-type]
    untyped = replace(full, id=new_id())
    with connection.transaction():
        for one in events:
            connection.execute(INSERT_EVENT, outbox_values(one, shop.topic))
        connection.execute(INSERT_EVENT, (*outbox_values(untyped, shop.topic)[:-1], ""))
    return {one.id: one for one in (*events, untyped)}


def expected(connection: Connection) -> dict[str, Sent]:
    """The messages of the rows, by id."""
    rows = [OutboxRow._make(row) for row in connection.execute(f"select {COLUMNS} from outbox")]  # noqa: S608
    return {
        str(row.id): (
            str(row.aggregate_id).encode(),
            row.payload,
            {name: str(value).encode() for name, value in headers(row)},
        )
        for row in rows
    }


def sent(shop: Shop, count: int) -> dict[str, Sent]:
    """What the topic holds when it holds so many, by id: key, value, and the headers that are not Debezium's own."""
    messages = until(f"{count} messages", lambda: found if len(found := _read(shop)) >= count else None)
    return {found["ce_id"].decode(): (kafka.key(m), kafka.value(m), found) for m in messages if (found := _ours(m))}


def _ours(message: Message) -> dict[str, Any]:
    return {
        name: value for name, value in kafka.header_pairs(message) if name.startswith("ce_") or name == "content-type"
    }


def _read(shop: Shop) -> list[Message]:
    return kafka.read_all(shop.broker, shop.topic)


def check(messages: dict[str, Sent], events: dict[str, Event]) -> None:
    """They are CloudEvents to the letter, to us and to the SDK, and the events that were written."""
    for ident, (key, value, found) in messages.items():
        names = [name.removeprefix("ce_") for name in found if name != "content-type"]
        assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in names), found
        assert all(found.values()), found
        assert "sequence" not in names
        assert from_binary(KafkaMessage(found, key, value or b""), JSONFormat()).get_id() == ident
        assert Event.from_kafka(key, value, found) == events[ident]


@pytest.fixture
def connector(shop: Shop, connect: Endpoint, postgres: Endpoint, unique: str) -> Iterator[Connector]:
    connector = Connector(connect, postgres, unique, unique)
    connector.put()
    yield connector
    connector.delete()


def test_debezium_sends_what_the_others_send_and_nothing_without_a_value(
    shop: Shop, connector: Connector, connection: Connection
) -> None:
    events = write(shop, connection)
    found = sent(shop, len(events))
    assert found == expected(connection)
    check(found, events)


@pytest.mark.parametrize("way", RELAYS)
def test_every_relay_sends_no_header_without_a_value_and_no_tombstone(
    way: RelayClass, shop_with_slot: Shop, connection: Connection
) -> None:
    events = write(shop_with_slot, connection)
    relay, wanted = make_relay(shop_with_slot, way, connection, 10), expected(connection)
    moved = 0

    def done() -> bool:
        nonlocal moved
        moved += relay.step()
        return moved >= len(events)

    until("all to be relayed", done)
    if isinstance(relay, WalRelay):
        relay.close()
    found = sent(shop_with_slot, len(events))
    assert found == wanted
    check(found, events)
