"""What a consumer cannot use is kept whole, with its reason, and stops nobody."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from outbox.consumer import with_inbox
from outbox.deadletters import keep, kept
from outbox.stage.failures import LEDGER, consume_through
from outbox.stage.payments import SCHEMA, Payments, accounts, consume, due

from shared import kafka
from shared.event import Event, new_id
from shared.history import Action, History, Outcome
from shared.postgres import Connection, connect
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

Header = tuple[str, str | bytes | None]
# What is wrong with a message -> its value, headers that are other than a payment's, and what the reason says.
BAD: dict[str, tuple[bytes | None, dict[str, bytes], str]] = {
    "Latin-1": (b'{"customer":"\xfcnal","cents":1}', {}, "the payload is not"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, {}, "nested"),
    "NaN": (b'{"customer":"c","cents":NaN}', {}, "the payload is not"),
    "half a surrogate pair": (b'{"customer":"\\ud83d","cents":1}', {}, "surrogate"),
    "a tombstone": (None, {}, "tombstone"),
    "no data": (b"", {}, "Expected `object`, got `null`"),
    "another shape": (b'{"customer":1}', {}, "customer"),
    "a list": (b"[]", {}, "Expected `object`"),
    "more cents than there are": (b'{"customer":"c","cents":99999999999999999999}', {}, "out of range"),
    "a character that Postgres has not": (b'{"customer":"\\u0000","cents":1}', {}, "NUL"),
    "a bad header": (b"{}", {"ce_subject": b"\xff"}, "utf-8"),
    "no id": (b"{}", {"ce_id": b""}, "id"),
    "a structured one, deep": (b"[" * 5_000, {"content-type": b"application/cloudevents+json"}, "nested"),
}


@pytest.fixture
def payments(schema: str, kafka: Endpoint, topic: Callable[..., str], tmp_path: Path) -> Payments:
    """Payments in a topic, and before and after each bad message one of them."""
    with connect(schema) as connection:
        connection.execute(SCHEMA)
    return Payments(schema, kafka, topic("payments", partitions=1), tmp_path / "consumed.jsonl", seed=7, count=20)


def publish(shop: Payments) -> None:
    producer, bad = kafka.producer(shop.broker), list(BAD.values())
    for event in shop.events():
        send(producer, shop, event, event.to_kafka().value, {})
        if bad:
            value, headers, _ = bad.pop(0)
            send(producer, shop, replace(event, id=new_id()), value, headers)
    producer.flush()
    assert not bad


def send(producer: Producer, shop: Payments, event: Event, value: bytes | None, other: dict[str, bytes]) -> None:
    message = event.to_kafka()
    headers: list[Header] = [*(dict(message.headers) | other).items(), ("trace", b"\xff\x00"), ("empty", None)]
    producer.produce(shop.topic, value, message.key, headers=headers)


def test_bad_messages_are_kept_and_the_good_ones_done(payments: Payments) -> None:
    publish(payments)
    consume(payments, with_inbox)
    assert accounts(payments.conninfo) == due(payments)
    with connect(payments.conninfo) as connection:
        letters = kept(connection, f"{payments.topic}.consumed")
    assert [letter.value for letter in letters] == [value for value, _, _ in BAD.values()]
    assert [why for (_, _, why), letter in zip(BAD.values(), letters, strict=True) if why not in letter.reason] == []
    assert {(letter.headers["trace"], letter.headers["empty"]) for letter in letters} == {(b"\xff\x00", None)}
    assert [letter.key for letter in letters] == [event.subject.encode() for event in payments.events()][: len(BAD)]


def test_the_history_tells_of_every_delivery_and_of_no_effect_of_a_bad_one(payments: Payments) -> None:
    publish(payments)
    consume(payments, with_inbox)
    history = History.read(payments.history)
    assert len(list(history.of(Action.EFFECT, Outcome.OK))) == payments.count
    assert len(list(history.of(Action.DELIVER, Outcome.FAIL))) == len(BAD)


def test_delivered_again_a_bad_message_is_kept_once(payments: Payments) -> None:
    publish(payments)
    message, error = kafka.read_all(payments.broker, payments.topic)[1], ValueError("\0")
    with connect(payments.conninfo) as connection:
        for consumer in ("one", "one", "other"):
            keep(connection, consumer, message, error)
        assert [letter.reason for letter in kept(connection, "one")] == ["ValueError: \\0"]


def test_the_supervised_consumer_goes_on_too(payments: Payments, tmp_path: Path) -> None:
    publish(payments)
    with connect(payments.conninfo) as connection, connection.transaction():
        connection.execute("drop table dead_letters")
        connection.execute(LEDGER)
    worker = Worker("consumer", tmp_path / "log", consume_through, payments, group := f"{payments.topic}.ledger")
    with worker, connect(payments.conninfo) as connection:
        # The ledger does not look at customers.
        until("all to be booked", lambda: booked(connection) == payments.count + 1)
        until("the others to be kept", lambda: len(kept(connection, group)) == len(BAD) - 1)


def booked(connection: Connection) -> int:
    row = connection.execute("select count(*) from ledger").fetchone()
    return int(row[0]) if row else 0
