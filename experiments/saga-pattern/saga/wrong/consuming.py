"""Consumers that die of a message that they cannot read, and read it again when they are started again."""

from collections.abc import Callable

import msgspec
from confluent_kafka import Message

from saga.messaging import Topics, request_of
from saga.order import Request
from saga.services.shop import Shop
from saga.transport import Inlet, advance, offsets, reached
from shared import kafka
from shared.servers.server import Endpoint


def careless(shop: Shop, topics: Topics, broker: Endpoint, service: str) -> None:
    """A process: the consumer of many tutorials. It dies of what it cannot read, and reads it again when started."""
    consume(shop, topics, broker, service, request_of)


def half(shop: Shop, topics: Topics, broker: Endpoint, service: str) -> None:
    """A process: a consumer that puts aside what its parser calls an error, and dies of what the parser dies of."""
    consume(shop, topics, broker, service, msgspec_only)


def consume(
    shop: Shop, topics: Topics, broker: Endpoint, service: str, read: Callable[[Message], Request | None]
) -> None:
    """What both do."""
    with shop.open() as services:
        connection = services.connections[service]
        inlet = Inlet(broker, [topics.commands[service]], offsets(connection))
        while True:
            for message in inlet.read(seconds=1):
                with connection.transaction():
                    if request := read(message):
                        services(request)
                    advance(connection, reached([message]))


def msgspec_only(message: Message) -> Request | None:
    """Nothing for what msgspec says that it cannot be read."""
    try:
        return msgspec.json.decode(kafka.value(message) or b"", type=Request)
    except msgspec.MsgspecError as error:
        print(f"put aside: {error}")
        return None
