"""A tap sees everything that its topics hold, and writes it down, what it must reject included."""

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from shared import kafka as helpers
from shared.checkers import backwards, duplicate_delivery, skipped
from shared.errors import DeadlineExceeded
from shared.event import Event
from shared.history import Action, History, Outcome, Recorder
from shared.servers.server import Endpoint
from shared.tap import Tap
from shared.workload import events

Topic = Callable[..., str]
Opener = Callable[..., Tap]
Publisher = Callable[[str, list[Event]], None]


@pytest.fixture
def name(topic: Topic) -> str:
    return topic()


@pytest.fixture
def tap(kafka: Endpoint, recorder: Recorder) -> Opener:
    return lambda *topics: Tap("consumer", kafka, topics, recorder)


@pytest.fixture
def made() -> list[Event]:
    return list(events(seed=1, count=200))


@pytest.fixture(scope="module")
def producer(kafka: Endpoint) -> Producer:
    return helpers.producer(kafka)


@pytest.fixture
def publish(producer: Producer) -> Publisher:
    """A function that sends events to a topic, and returns when they are there."""

    def publish(topic: str, made: list[Event]) -> None:
        for event in made:
            message = event.to_kafka()
            producer.produce(topic, message.value, message.key, headers=dict(message.headers))
        producer.flush()

    return publish


def delivered(recorder: Recorder) -> list[str]:
    return [op.value for op in History.read(recorder.path).delivered]


def test_it_sees_what_was_there_before_and_what_comes(
    name: str, tap: Opener, made: list[Event], recorder: Recorder, publish: Publisher
) -> None:
    publish(name, made[:100])
    with tap(name) as opened:
        publish(name, made[100:])
        assert opened.wait_for(200)
    assert sorted(delivered(recorder)) == sorted(event.id for event in made)
    assert sorted(opened.events, key=lambda event: event.id) == made


def test_it_writes_down_where_each_event_was(
    name: str, tap: Opener, made: list[Event], recorder: Recorder, publish: Publisher
) -> None:
    publish(name, made)
    with tap(name) as opened:
        opened.catch_up()
    history = History.read(recorder.path)
    assert {(op.process, op.topic) for op in history.delivered} == {("consumer", name)}
    assert {(op.value, op.key, op.seq) for op in history.delivered} == {(e.id, e.subject, e.sequence) for e in made}
    assert not skipped(history) + backwards(history) + duplicate_delivery(history)


def test_what_is_no_event_is_rejected_with_the_reason(
    name: str, tap: Opener, made: list[Event], recorder: Recorder, publish: Publisher, producer: Producer
) -> None:
    producer.produce(name, b"not an event", b"k")
    producer.flush()
    publish(name, made)
    with tap(name) as opened:
        opened.catch_up()
    [(message, error)] = opened.rejected
    assert message.value() == b"not an event"
    [refused] = History.read(recorder.path).of(Action.DELIVER, Outcome.FAIL)
    assert refused.note == str(error) == "specversion: there is no ce_specversion header"
    assert (refused.topic, refused.offset) == (name, message.offset())
    assert len(opened.events) == len(made)


def test_an_event_twice_is_delivered_twice(name: str, tap: Opener, made: list[Event], publish: Publisher) -> None:
    publish(name, [*made, *made])
    with tap(name) as opened:
        opened.catch_up()
    assert (len(opened.events), len(opened.ids)) == (400, 200)


def test_several_topics_are_read_as_one(topic: Topic, tap: Opener, made: list[Event], publish: Publisher) -> None:
    names = topic("a"), topic("b")
    for half, name in zip((made[:50], made[50:]), names, strict=True):
        publish(name, half)
    with tap(*names) as opened:
        opened.catch_up()
    assert opened.ids == {event.id for event in made}


def test_catch_up_returns_when_all_is_read_also_past_a_transactions_marker(
    kafka: Endpoint, name: str, tap: Opener, made: list[Event], unique: str
) -> None:
    producer = helpers.producer(kafka, transactional_id=unique)
    producer.init_transactions(60)
    for abort in (False, True):
        producer.begin_transaction()
        for event in made[100:] if abort else made[:100]:
            producer.produce(name, event.to_kafka().value, event.subject, headers=dict(event.to_kafka().headers))
        producer.flush()
        producer.abort_transaction(60) if abort else producer.commit_transaction(60)
    with tap(name) as opened:
        opened.catch_up(10)
    assert opened.ids == {event.id for event in made[:100]}


def test_catch_up_of_an_empty_topic_returns_at_once(name: str, tap: Opener) -> None:
    with tap(name) as opened:
        opened.catch_up(5)
    assert opened.events == []


def test_when_time_is_up_wait_for_leaves_the_word_to_the_checkers(name: str, tap: Opener) -> None:
    with tap(name) as opened:
        assert opened.wait_for(1, seconds=0.05) is False


def test_catch_up_says_what_it_waits_for(
    kafka: Endpoint, name: str, recorder: Recorder, made: list[Event], publish: Publisher
) -> None:
    publish(name, made)
    tap = Tap("consumer", kafka, [name], recorder)  # never entered, so it reads nothing
    with pytest.raises(DeadlineExceeded, match=f"consumer to read {name}"):
        tap.catch_up(0.05)
    tap._consumer.close()


def test_a_reader_that_broke_tells_it_at_the_end_and_keeps_nobody_waiting(
    kafka: Endpoint, name: str, tmp_path: Path, made: list[Event], publish: Publisher
) -> None:
    broken = Recorder(tmp_path / "history.jsonl", "test")
    broken.close()
    publish(name, made)
    tap = Tap("consumer", kafka, [name], broken).__enter__()
    assert tap.wait_for(1) is False
    tap.catch_up()
    with pytest.raises(OSError, match="Bad file descriptor"):
        tap.__exit__(None, None, None)
