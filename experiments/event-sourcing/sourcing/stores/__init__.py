"""The event stores that people choose from, behind one Protocol: each by name, how it is made, opened and removed.

Every module has `create(endpoint, space)`, `open_store(endpoint, space)` and `drop(endpoint, space)`. The space is what
a store has to itself on its server: a schema, a database, a topic. Servers without such a thing share one log.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.servers.server import Endpoint
from sourcing.store import Capability, EventStore


@dataclass(frozen=True)
class Adapter:
    """A store that can be chosen: the server of the catalogue that it needs, the module that adapts it, its class."""

    server: str
    module: str
    store: str

    def load(self) -> Any:
        """The module, imported when it is asked for: nobody needs the clients of all the stores."""
        return importlib.import_module(f"{__name__}.{self.module}")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the store declares; no server is asked."""
        declared: frozenset[Capability] = getattr(self.load(), self.store).capabilities
        return declared


STORES = {
    "PostgreSQL": Adapter("postgres", "reference", "PostgresStore"),
    "eventsourcing": Adapter("postgres", "pyeventsourcing", "RecorderStore"),
    "message-db": Adapter("postgres", "message_db", "MessageDbStore"),
    "UmaDB": Adapter("umadb", "umadb", "UmaDBStore"),
    "Kafka": Adapter("kafka", "kafka", "KafkaStore"),
    "Kafka, one owner": Adapter("kafka", "kafka_owner", "KafkaOwner"),
    "EventStoreDB": Adapter("eventstoredb", "kurrentdb", "KurrentStore"),
    "Axon Server": Adapter("axon", "axon", "AxonStore"),
}


@dataclass(frozen=True)
class Address:
    """Where one store is. It can be sent to another process, which opens the store for itself."""

    kind: str
    endpoint: Endpoint
    space: str

    def open(self) -> EventStore:
        store: EventStore = STORES[self.kind].load().open_store(self.endpoint, self.space)
        return store


@contextmanager
def created(kind: str, endpoint: Endpoint, space: str, keep: bool = False) -> Iterator[Address]:
    """An empty store of that kind, removed at the end."""
    module = STORES[kind].load()
    module.create(endpoint, space)
    try:
        yield Address(kind, endpoint, space)
    finally:
        if not keep:
            module.drop(endpoint, space)
