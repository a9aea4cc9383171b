"""Three brokers: what is acknowledged by all in-sync replicas survives the loss of one."""

import pytest
from confluent_kafka.admin import AdminClient

from shared import kafka
from shared.servers.server import Endpoint
from shared.servers.status import Status
from shared.tests.servers.lab import Lab
from shared.wait import until


def _produce(endpoint: Endpoint, value: bytes) -> None:
    """One record, acknowledged by all in-sync replicas."""
    producer = kafka.producer(endpoint)
    failed: list[object] = []
    producer.produce("orders", value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(30) == 0
    assert failed == []


@pytest.mark.slow
@pytest.mark.fault
def test_cluster_keeps_what_it_acknowledged_when_a_node_is_killed(lab: Lab) -> None:
    endpoint = lab.stack().up(["kafka-cluster"])["kafka-cluster"]
    kafka.create_topics(endpoint, ["orders"], partitions=1)
    admin = AdminClient(kafka.config(endpoint))
    leader = admin.list_topics("orders", timeout=10).topics["orders"].partitions[0]
    assert len(leader.replicas) == 3
    _produce(endpoint, b"before")
    lab.stack().control("kafka-cluster").kill(node=leader.leader)
    _produce(endpoint, b"after")
    assert [kafka.value(message) for message in kafka.read_all(endpoint, "orders")] == [b"before", b"after"]
    assert _status(lab).state == "died"
    assert _status(lab).detail.endswith(f"node-{leader.leader}.log")
    lab.stack().control("kafka-cluster").start()
    assert _status(lab).state == "running"
    until("three replicas are in sync again", lambda: _in_sync(admin) == 3, 60)


def _status(lab: Lab) -> Status:
    (seen,) = (status for status in lab.stack().status() if status.server == "kafka-cluster")
    return seen


def _in_sync(admin: AdminClient) -> int:
    return len(admin.list_topics("orders", timeout=10).topics["orders"].partitions[0].isrs)
