"""The Kafka helpers: what they make, read to the end and remove."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from shared import kafka as helpers
from shared.errors import DeadlineExceeded
from shared.servers.server import Endpoint
from shared.wait import until

Topic = Callable[..., str]
Sender = Callable[..., None]
KEYS = [b"order-1", b"order-2", b"order-3", b"a", b"ab", b"abc", b"abcd", b"\xff\x00\xfe"]


# What has been let go of does not complain when its broker stops, whenever Python looks for cycles. A witness, who says
# nothing on stderr, has noticed several times that the broker is gone: so would they have.
LETTING_GO = """
import gc
from confluent_kafka import Producer
from shared import kafka
from shared.servers.handle import own_instance
from shared.settings import Settings
from shared.wait import until

class Owner:
    def __init__(self, endpoint):
        self.producer = kafka.producer(endpoint, on_delivery=self.delivered)
        self.failures = 0

    def delivered(self, error, message):
        self.failures += error is not None

def use(endpoint):
    kafka.create_topics(endpoint, ["orders"])
    owner, bare = Owner(endpoint), kafka.producer(endpoint)
    for producer in (owner.producer, bare):
        producer.produce("orders", b"x")
        producer.flush()
    print(len(kafka.read_all(endpoint, "orders")), owner.failures, kafka.delete_topics(endpoint, "orders"))

gc.disable()
noticed = []
with own_instance("kafka", Settings.load(), None, {}) as handle:
    use(handle.endpoint)
    quiet = {"log_level": 0, "error_cb": noticed.append, "reconnect.backoff.max.ms": 200}
    witness = Producer({**kafka.config(handle.endpoint), **quiet})
    witness.list_topics(timeout=10)
until("the witness to notice", lambda: witness.poll(0.05) or len(noticed) >= 5)
"""


@pytest.fixture
def admin(kafka: Endpoint) -> AdminClient:
    return AdminClient(helpers.config(kafka))


@pytest.fixture
def neighbour(kafka: Endpoint, unique: str) -> Iterator[str]:
    """A topic, and the name of a group, that contains this test's name but does not begin with it."""
    name = f"neighbour_of_{unique}"
    helpers.create_topics(kafka, [name])
    yield name
    helpers.delete_topics(kafka, name)


@pytest.fixture
def transactional(kafka: Endpoint, unique: str) -> Producer:
    producer = helpers.producer(kafka, transactional_id=unique)
    producer.init_transactions(60)
    return producer


def topics(admin: AdminClient) -> set[str]:
    return set(admin.list_topics(timeout=10).topics)


def latest() -> OffsetSpec:
    return OffsetSpec.latest()  # type: ignore[no-untyped-call, no-any-return]


def groups(admin: AdminClient) -> set[str]:
    return {group.group_id for group in admin.list_consumer_groups(request_timeout=10).result().valid}


@pytest.fixture(scope="module")
def producer(kafka: Endpoint) -> Producer:
    return helpers.producer(kafka)


@pytest.fixture
def send(producer: Producer) -> Sender:
    """A function that sends every value with every key to a topic."""

    def send(topic: str, *values: bytes, keys: Sequence[bytes] = (b"k",)) -> None:
        for value, key in product(values, keys):
            producer.produce(topic, value, key)
        producer.flush()

    return send


def transact(producer: Producer, topic: str, *values: bytes, commit: bool = True) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"k")
    producer.flush()
    if commit:
        producer.commit_transaction(60)
    else:
        producer.abort_transaction(60)


def leave_a_commit(endpoint: Endpoint, topic: str, group: str) -> None:
    """Be a member of the group that commits the end of a partition, and leave."""
    with helpers.consumer(endpoint, [topic], group) as consumer:
        [message] = helpers.checked([until("a record", lambda: consumer.poll(0.1))])
        consumer.commit(message=message, asynchronous=False)


def murmur2(data: bytes) -> int:
    """Kafka's hash of keys, after org.apache.kafka.common.utils.Utils.murmur2."""
    mask, m, h = 0xFFFFFFFF, 0x5BD1E995, 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def test_a_created_topic_has_its_partitions_at_once(admin: AdminClient, topic: Topic) -> None:
    name = topic(partitions=5)
    assert len(admin.list_topics(timeout=10).topics[name].partitions) == 5


def test_the_leaders_of_a_created_topic_answer(kafka: Endpoint, admin: AdminClient, unique: str) -> None:
    # On a broker of Kafka 4.3 that is idle, 48 of 60 fresh topics did not when the metadata already named a leader.
    names = [f"{unique}.{number}" for number in range(20)]
    for name in names:
        helpers.create_topics(kafka, [name])
        places = dict.fromkeys((TopicPartition(name, partition) for partition in range(3)), latest())
        assert [end.result().offset for end in admin.list_offsets(places).values()] == [0, 0, 0]
    helpers.delete_topics(kafka, unique)


@pytest.mark.fault
def test_clients_that_were_let_go_of_do_not_complain_when_their_broker_stops() -> None:
    done = subprocess.run([sys.executable, "-c", LETTING_GO], capture_output=True, text=True, check=False)
    assert done.stdout == "2 0 ['orders']\n", done.stderr
    assert [line for line in done.stderr.splitlines() if "FAIL" in line or "refused" in line] == []


def test_a_method_that_is_told_of_deliveries_is_told(kafka: Endpoint, topic: Topic) -> None:
    noted: list[Message] = []

    class Owner:
        def delivered(self, error: KafkaError | None, message: Message) -> None:
            noted.append(message)

    owner = Owner()
    with helpers.producer(kafka, on_delivery=owner.delivered) as producer:
        producer.produce(topic(), b"x")
    assert [message.value() for message in noted] == [b"x"]


def test_end_offsets_of_a_topic_that_is_not_there_are_an_error(kafka: Endpoint, unique: str) -> None:
    with pytest.raises(KafkaException, match="nknown topic"):
        helpers.end_offsets(kafka, unique)


def test_a_topic_that_exists_is_an_error(kafka: Endpoint, topic: Topic) -> None:
    name = topic()
    with pytest.raises(KafkaException, match="already exists"):
        helpers.create_topics(kafka, [name])


def test_delete_topics_removes_nothing_outside_the_prefix(
    kafka: Endpoint, admin: AdminClient, topic: Topic, unique: str, neighbour: str, send: Sender
) -> None:
    name = topic()
    send(name, b"1")
    for group in (unique, neighbour):
        leave_a_commit(kafka, name, group)
    assert helpers.delete_topics(kafka, unique) == [name]
    until("the topic to be gone", lambda: name not in topics(admin))
    assert neighbour in topics(admin)
    until("the group to be gone", lambda: unique not in groups(admin))
    assert neighbour in groups(admin)


def test_delete_topics_refuses_the_prefix_of_everything(kafka: Endpoint) -> None:
    with pytest.raises(ValueError, match="every topic"):
        helpers.delete_topics(kafka, "")


def test_deleting_what_is_not_there_is_no_error(kafka: Endpoint, unique: str) -> None:
    assert helpers.delete_topics(kafka, unique) == []


def test_a_key_goes_where_javas_clients_put_it(kafka: Endpoint, topic: Topic, send: Sender) -> None:
    name = topic(partitions=7)
    send(name, b"v", keys=KEYS)
    found = {helpers.key(message): message.partition() for message in helpers.read_all(kafka, name)}
    assert found == {key: (murmur2(key) & 0x7FFFFFFF) % 7 for key in KEYS}


def test_settings_of_the_user_win_and_reach_the_client() -> None:
    endpoint = Endpoint("kafka", "127.0.0.1:1", "yours", {"sasl.username": "me", "log_level": "3"})
    assert helpers.config(endpoint) == {"bootstrap.servers": "127.0.0.1:1", "log_level": "3", "sasl.username": "me"}
    with pytest.raises(KafkaException, match=r"no\.such\.thing"):
        helpers.producer(endpoint, no_such_thing=1)


def test_end_offsets_are_those_after_the_last_record(kafka: Endpoint, topic: Topic, send: Sender) -> None:
    name = topic(partitions=2)
    send(name, b"1", b"2", b"3")
    assert sorted(helpers.end_offsets(kafka, name).values()) == [0, 3]


def test_read_all_reads_everything_partition_after_partition(kafka: Endpoint, topic: Topic, send: Sender) -> None:
    name = topic()
    send(name, *(b"%d" % number for number in range(5)), keys=KEYS)
    places = [(m.partition(), m.offset()) for m in helpers.read_all(kafka, name)]
    assert places == sorted(places)
    assert len(set(places)) == 5 * len(KEYS)


def test_read_all_of_an_empty_topic_is_nothing(kafka: Endpoint, topic: Topic) -> None:
    assert helpers.read_all(kafka, topic()) == []


def test_read_all_ends_at_the_markers_of_transactions(kafka: Endpoint, topic: Topic, transactional: Producer) -> None:
    name = topic(partitions=1)
    transact(transactional, name, b"1", b"2")
    transact(transactional, name, b"aborted", commit=False)
    assert [m.value() for m in helpers.read_all(kafka, name, seconds=10)] == [b"1", b"2"]
    assert helpers.end_offsets(kafka, name) == {0: 5}  # three records, two markers


def test_read_all_says_how_far_it_came(kafka: Endpoint, topic: Topic, send: Sender) -> None:
    name = topic(partitions=1)
    send(name, b"1")
    with pytest.raises(DeadlineExceeded, match=r"not yet up to \{0: 1\}"):
        helpers.read_all(kafka, name, seconds=-1)


def test_headers_of_one_name_give_the_last(kafka: Endpoint, topic: Topic, producer: Producer) -> None:
    name = topic()
    producer.produce(name, b"v", headers=[("h", b"1"), ("h", b"2"), ("null", None)])
    producer.flush()
    [message] = helpers.read_all(kafka, name)
    assert helpers.headers(message) == {"h": b"2"}
