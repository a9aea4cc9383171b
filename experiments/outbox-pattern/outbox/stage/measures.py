"""What experiments and the benchmark measure with: rows, consumers with a clock, a paced writer, Postgres' counts."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from confluent_kafka import Consumer, Message, TopicPartition

from outbox.relay.message import COLUMNS, OutboxRow, headers
from outbox.stage.shop import Looked, Shop
from outbox.table import INSERT_STEP, step_values
from outbox.writer import one_round_trip, place_pipelined
from shared import kafka
from shared.event import Event
from shared.history import History
from shared.postgres import Connection, connect, number
from shared.threads import paced
from shared.wait import until
from shared.worker import Worker, announce

# About 200 bytes of JSON, as a small order has.
BACKLOG = """
insert into outbox (aggregate_type, aggregate_id, payload, id, type, source, sequence, correlation_id)
select %(topic)s, 'order-' || (i / 4),
       convert_to('{"order":"order-' || (i / 4) || '","customer":"customer-' || (i %% 997)
                  || '","cents":' || (i %% 9973) || ',"note":"' || repeat('x', 120) || '"}', 'utf8'),
       gen_random_uuid(), 'shop.order.placed', '/shop/orders', i %% 4 + 1, 'order-' || (i / 4)
from generate_series(%(first)s::bigint, %(last)s::bigint) as i
"""
PER_TRANSACTION = 100
PRODUCER = {"linger_ms": 5, "queue_buffering_max_messages": 1_000_000, "queue_buffering_max_kbytes": 1_048_576}


def write_rows(shop: Shop, count: int, per_transaction: int = PER_TRANSACTION) -> None:
    """`count` outbox rows, some in each transaction."""
    with connect(shop.conninfo) as connection:
        for first in range(0, count, per_transaction):
            last = min(first + per_transaction, count) - 1
            connection.execute(BACKLOG, {"topic": shop.topic, "first": first, "last": last}, prepare=True)
        connection.execute("vacuum analyze outbox")
        # What was written is on the disk before anything is measured: nobody pays for another's pages.
        connection.execute("checkpoint")
    os.sync()


@dataclass(frozen=True)
class Drain:
    """What a drain took, by the consumer's clock."""

    events: int
    seconds: float  # from the first consumed to the last
    cpu: dict[str, float] = field(default_factory=dict)  # process -> CPU seconds that it took, its start-up included
    ended: float = 0.0  # time.monotonic() when it had the last

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def consume_drain(shop: Shop, count: int) -> Drain:
    """A process: consume `count` new records. It is ready when it stands at the end of the topic.

    It counts, and no more: what the consumer costs, it takes from the relay on a machine of two cores. Records that
    come twice (Debezium repeats some when it is resumed) count as others do: the rate is one of records.
    """
    consumer = _at_end(shop)
    seen, first, cpu = 0, 0.0, time.process_time()
    while seen < count:
        records = _records(consumer.consume(2000, timeout=0.01))
        if records and not first:
            first = time.monotonic()
        seen += records
    ended, cpu = time.monotonic(), time.process_time() - cpu
    consumer.close()
    return Drain(seen, ended - first, {"consumer": cpu}, ended)


def consume_clocked(shop: Shop) -> dict[str, int]:
    """A process: consume one by one until all the shop's events have come; event id -> ns when received."""
    expected = {event.id for event in shop.events()}
    consumer = _at_end(shop)
    received: dict[str, int] = {}
    while expected:
        message = consumer.poll(1.0)
        if message is not None and _records([message]):
            at, ident = time.monotonic_ns(), kafka.headers(message)["ce_id"].decode()
            received.setdefault(ident, at)
            expected.discard(ident)
    consumer.close()
    return received


def produce_bare(shop: Shop) -> None:
    """A process: send the outbox's payloads, keys and headers, in memory before the first: the limit of any relay."""
    with connect(shop.conninfo) as connection:
        rows = [OutboxRow._make(r) for r in connection.execute(f"select {COLUMNS} from outbox", binary=True)]  # noqa: S608
    messages = [(row.aggregate_type, row.payload, row.aggregate_id, headers(row)) for row in rows]
    producer = kafka.producer(shop.broker, **PRODUCER)
    producer.list_topics(timeout=10)
    for topic, payload, key, head in messages:
        producer.produce(topic, payload, key, headers=head)
    producer.flush()
    signal.pause()  # its CPU time is read from outside


def place_row_alone(connection: Connection, event: Event) -> None:
    """As outbox.writer.place_pipelined does it, without the event."""
    with one_round_trip(connection) as cursor:
        cursor.execute(INSERT_STEP, step_values(event), prepare=True)


def write_paced(shop: Shop) -> dict[str, int]:
    """A process: the shop's events at its rate; event id -> ns when the commit was acknowledged."""
    committed: dict[str, int] = {}
    with connect(shop.conninfo) as connection:
        for event in paced(shop.events(), shop.rate):
            place_pipelined(connection, event, shop.topic)
            committed[event.id] = time.monotonic_ns()
    return committed


def watch_memory(pid: int, stop: threading.Event, samples: list[float]) -> None:
    """Resident memory of a process in MB, ten times a second until told to stop."""
    process = psutil.Process(pid)
    while not stop.wait(0.1):
        samples.append(process.memory_info().rss / 1e6)


def idle_scans(conninfo: str, seconds: float, relaying: Callable[[], Worker]) -> tuple[int, float]:
    """(scans of an outbox without news, seconds that it took), from a relay's first look on, which is counted.

    `relaying` starts the relay, which announces that it has looked (see shop.relay).
    """
    before = scans(conninfo)
    with relaying() as worker:
        looked: Looked = worker.ready()
        time.sleep(seconds)
    took = time.monotonic() - looked.at
    await_counts(conninfo, looked.session)
    return scans(conninfo) - before, took


def waits(history: History, prefix: str = "") -> list[float]:
    """Milliseconds from the end of each write to the first delivery of its event, of orders whose ids begin so."""
    first = {op.value: op.at for op in reversed(history.delivered)}
    written = {value: op for value, op in history.written.items() if op.key.startswith(prefix)}
    return [(first[value] - op.at) / 1e6 for value, op in written.items() if value in first]


def recovery(history: History, done: int) -> float | None:
    """Seconds from `done`, when the harm was done, to the first delivery of an event written after it; None: none came.

    Not from the fault's own time: that is noted before the harm begins, and what is written until it is done is
    delivered as if nothing were.
    """
    late = {value for value, op in history.written.items() if op.at > done}
    delivered = [op.at for op in history.delivered if op.value in late]
    return (min(delivered) - done) / 1e9 if delivered else None


def again_after(gap: float | None) -> str:
    """What `recovery` found, in words."""
    return "no new event after it" if gap is None else f"new ones again after {gap:.1f} s"


def _at_end(shop: Shop) -> Consumer:
    """A consumer that stands at the end of the topic.

    It is ready when it was told of the end of every partition. The first fetch can take a second; a clock that starts
    with the first record would make that second's events a gift.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    gc.disable()  # nothing here makes cycles, and looking for them stops the consumer for 0.1 s now and then
    settings: dict[str, Any] = {**kafka.config(shop.broker), **kafka.CONSUMER, "group.id": "lab-measure"}
    settings |= {"fetch.wait.max.ms": 10, "queued.min.messages": 100_000, "enable.partition.eof": True}
    consumer, ends = Consumer(settings), kafka.end_offsets(shop.broker, shop.topic)
    consumer.assign([TopicPartition(shop.topic, partition, end) for partition, end in ends.items()])
    left = set(ends)
    while left:
        left -= {message.partition() for message in consumer.consume(len(left), 1.0) if kafka.at_end(message)}
    announce()
    return consumer


def _records(messages: Sequence[Message]) -> int:
    """How many of them are records, and not the news that a partition has no more. Raises KafkaException on errors."""
    others = [message for message in messages if message.error() is not None]
    for _ in kafka.checked(message for message in others if not kafka.at_end(message)):
        pass
    return len(messages) - len(others)


def scans(conninfo: str) -> int:
    """How often the outbox was looked into, by index or not, as Postgres counts, all partitions together."""
    query = """
    select coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0) from pg_stat_user_tables
    where relid in (select relid from pg_partition_tree('outbox'))
    """
    with connect(conninfo) as connection:
        return number(connection, query)


def await_counts(conninfo: str, session: int) -> None:
    """Return when a session has ended, by its process id: only then `scans` has all that it did."""
    query = "select not exists (select from pg_stat_activity where pid = %s)"
    with connect(conninfo) as connection:
        until(f"session {session} to end", lambda: connection.execute(query, [session]).fetchone() == (True,))
