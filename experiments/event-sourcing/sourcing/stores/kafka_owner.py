"""Kafka with an expected version after all: one process owns the partition, and writes for everybody.

The owner has read the partition, so it knows every stream's version and can check it in memory. What makes that safe is
the broker: `init_transactions` with the topic's own transactional id fences whoever owned it before (Kafka
documentation, "transactional.id"), and a fenced owner's commit fails. The price: one writer per partition, a
transaction for each append, and a start that reads everything.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException, Producer

from shared.servers.server import Endpoint
from sourcing.errors import SourcingError
from sourcing.event import NewEvent
from sourcing.store import ANY, Capability
from sourcing.stores.adapting import prepared, settled, text_of
from sourcing.stores.kafka import KafkaStore, create, drop

__all__ = ["KafkaOwner", "OwnershipLost", "create", "drop", "open_store"]

FENCED = KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH


class OwnershipLost(SourcingError):
    """Another process owns the partition now; this one must not write any more."""


def open_store(endpoint: Endpoint, space: str) -> "KafkaOwner":
    return KafkaOwner(endpoint, space)


class KafkaOwner(KafkaStore):
    """A KafkaStore whose first append takes the ownership from whoever had it. Reading needs none."""

    name: ClassVar[str] = "Kafka, one owner"
    one_owner: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[Capability]] = KafkaStore.capabilities | {Capability.EXPECTED_VERSION}

    def __init__(self, endpoint: Endpoint, topic: str) -> None:
        super().__init__(endpoint, topic)
        self._versions: Counter[str] = Counter()
        self._turn = threading.Lock()  # those for whom it writes are threads of the process

    def append(self, stream: str, events: Sequence[NewEvent], expected: int = ANY) -> int:
        events, encoded = prepared(stream, events)
        with self._turn:
            self._transactional = self._transactional or self._take_over()
            return self._append(self._transactional, stream, events, expected, encoded)

    def _append(
        self,
        owner: Producer,
        stream: str,
        events: Sequence[NewEvent],
        expected: int,
        encoded: Sequence[tuple[bytes, bytes]],
    ) -> int:
        if expected not in (ANY, self._versions[stream]):
            return settled(self, stream, events, expected, lambda: self._versions[stream])
        try:
            self._send_all(owner, stream, events, encoded)
        except KafkaException as error:
            if error.args[0].code() in FENCED:
                raise OwnershipLost(f"{self.topic} has another owner now") from error
            self._transactional = None  # it may have been committed all the same: taken over anew, we shall know
            raise
        self._versions[stream] += len(events)
        return self._versions[stream]

    def _take_over(self) -> Producer:
        # Fence first, read then: what an earlier owner still commits is in what is read, or never happens.
        owner = self._begin(f"{self.topic}-owner")
        self._versions = self._count()
        return owner

    def _count(self) -> Counter[str]:
        return Counter(text_of(message.key()) for message in self._from(0))
