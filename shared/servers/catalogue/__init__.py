"""Every server of the labs, by name. One file per server beside this one."""

from shared.errors import ConfigurationError
from shared.servers.catalogue.axon import Axon
from shared.servers.catalogue.camunda import Camunda
from shared.servers.catalogue.connect import Connect
from shared.servers.catalogue.eventstoredb import EventStoreDB
from shared.servers.catalogue.kafka import Kafka, KafkaCluster
from shared.servers.catalogue.moto import Moto
from shared.servers.catalogue.postgres import Postgres
from shared.servers.catalogue.registry import Registry
from shared.servers.catalogue.temporal import Temporal
from shared.servers.catalogue.umadb import UmaDB
from shared.servers.server import Server

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        *(Postgres(), Kafka(), KafkaCluster(), Connect(), Temporal(), Registry()),
        *(EventStoreDB(), Axon(), UmaDB()),
        *(Camunda(), Moto()),
    )
}


def find(name: str) -> Server:
    """The server of that name. Raises ConfigurationError listing all names."""
    try:
        return SERVERS[name]
    except KeyError:
        raise ConfigurationError(f"There is no server {name!r}. There are: {', '.join(SERVERS)}.") from None
