"""Seeded workloads: the orders of a web shop, each a short life of events, interleaved as real ones are."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.event import Event

LIFE = "placed", "paid", "reserved", "shipped"
SOURCE = "/shop/orders"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """An order of the shop; `cents` is its price."""

    id: str
    customer: str
    cents: int


def events(seed: int, count: int, orders: int | None = None, prefix: str = "order") -> Iterator[Event]:
    """`count` events of about `count / 4` orders (or of `orders`), numbered 1.. within their order.

    The same seed gives the same events, ids included: a run can be repeated. Ids are UUIDv7 of an invented time.
    """
    rng = random.Random(seed)
    waiting = [_order(rng, f"{prefix}-{number:05d}") for number in range(orders or -(-count // len(LIFE)))]
    at = {order.id: 0 for order in waiting}
    for number in range(count):
        order = rng.choice(waiting)
        at[order.id] += 1
        yield _event(rng, order, at[order.id], number)
        if orders is None and at[order.id] == len(LIFE):
            waiting.remove(order)


def _order(rng: random.Random, name: str) -> Order:
    return Order(name, f"customer-{rng.randrange(1000):03d}", rng.randrange(100, 50_000))


def _event(rng: random.Random, order: Order, sequence: int, number: int) -> Event:
    time = _EPOCH + timedelta(milliseconds=number)
    return Event(
        type=f"shop.order.{LIFE[(sequence - 1) % len(LIFE)]}",
        source=SOURCE,
        subject=order.id,
        data={"order": order.id, "customer": order.customer, "cents": order.cents, "number": sequence},
        id=seeded_id(rng, time),
        time=time,
        correlation_id=order.id,
        partition_key=order.id,
        sequence=sequence,
    )


def seeded_id(rng: random.Random, time: datetime) -> str:
    """A UUIDv7 whose random part comes from the generator (RFC 9562, section 5.7)."""
    milliseconds = int(time.timestamp() * 1000)
    fields = (milliseconds << 80) | (0x7 << 76) | (rng.getrandbits(12) << 64) | (0b10 << 62) | rng.getrandbits(62)
    return str(uuid.UUID(int=fields))
