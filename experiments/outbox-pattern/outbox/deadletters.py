"""What a consumer cannot use: it is kept with its reason, whole, and the consumer goes on.

One message that is no event, or whose data are not what the consumer knows, would else stop its partition for good.
Key, value and headers are kept as they came, so that it can be handled again when the cause is gone.
"""

from dataclasses import dataclass

from confluent_kafka import Message
from psycopg import DataError

from shared import kafka
from shared.errors import EventError, NotReadable
from shared.postgres import Connection

SCHEMA = """
create table dead_letters (
    consumer      text not null,
    topic         text not null,
    partition     integer not null,
    "offset"      bigint not null,
    key           bytea,
    value         bytea,
    header_names  text[] not null,
    header_values bytea[] not null,
    reason        text not null,
    kept_at       timestamptz not null default clock_timestamp(),
    primary key (consumer, topic, partition, "offset")
);
"""
KEEP = """
insert into dead_letters (consumer, topic, partition, "offset", key, value, header_names, header_values, reason)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing
"""
# No event; data of another shape; a value that no column of ours holds. Whatever else fails, may go well the next time.
UNUSABLE = EventError, NotReadable, DataError


@dataclass(frozen=True)
class DeadLetter:
    """A message as it came, and why it was not used."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]
    reason: str


def keep(connection: Connection, consumer: str, message: Message, reason: Exception) -> None:
    """Keep a message. Twice is as good as once: a message is known by its place in the topic."""
    pairs = kafka.header_pairs(message)
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    why = f"{type(reason).__name__}: {reason}".replace("\0", "\\0")  # Postgres' text cannot hold it
    place = consumer, message.topic(), message.partition(), message.offset()
    connection.execute(KEEP, [*place, kafka.key(message), kafka.value(message), names, values, why])


def kept(connection: Connection, consumer: str) -> list[DeadLetter]:
    """All that this consumer has kept, in the order of its keeping."""
    query = """
    select key, value, header_names, header_values, reason from dead_letters where consumer = %s
    order by kept_at, partition, "offset"
    """
    rows = connection.execute(query, [consumer])
    return [
        DeadLetter(key, value, dict(zip(names, values, strict=True)), why) for key, value, names, values, why in rows
    ]
