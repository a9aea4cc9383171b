"""Our orchestrator as an engine: its workers and hosts of the services, on the labs' Postgres and Kafka."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from saga.messaging import Topics
from saga.orchestrator.definition import Definition, read
from saga.orchestrator.office import Client, Office, client
from saga.orchestrator.store import create
from saga.order import Order, Outcome
from saga.services.host import MOST, prepare
from saga.stage.engines import Ended, Site
from saga.stage.killing import RecordedKill
from saga.stage.processes import host, work
from saga.windows import HostWindow, WorkerWindow
from shared import kafka, postgres
from shared.errors import ConfigurationError
from shared.worker import Worker

# Which services share a process. One process for all is busy with the steps of one service while another waits.
HOSTS = ("orders", "stock"), ("payments", "shipping")
ENDED = """
select id, status, extract(epoch from ended_at - started_at)::float8 from sagas
where id = any(%s) and status not in ('running', 'compensating')
"""


@dataclass
class Own:
    """The engine that is up."""

    office: Office
    client: Client
    orchestrators: list[Worker]
    hosts: list[Worker]
    name: str = "own orchestrator"

    @property
    def workers(self) -> list[Worker]:
        """Those that move sagas on, and those that have the effects: in other engines, one process does both."""
        return [*self.orchestrators, *self.hosts]

    @property
    def pids(self) -> dict[str, int]:
        return {worker.name: worker.process.pid or 0 for worker in self.workers}

    def start(self, order: Order) -> None:
        self.client.start(order)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        rows = self.client.store.connection.execute(ENDED, [list(sagas)]).fetchall()
        return {saga: Ended(Outcome(status), seconds) for saga, status, seconds in rows}


@contextmanager
def opened(site: Site, definition: Definition | None = None, most: int = MOST) -> Iterator[Own]:
    """Bring it up. A kill in a HostWindow is of the first host, in a WorkerWindow of the first worker.

    Hosts commit `most` commands at once. Raises ConfigurationError about any other window.
    """
    if site.kill and not isinstance(site.kill.window, HostWindow | WorkerWindow):
        raise ConfigurationError(f"our orchestrator has no window {site.kill.window!r}")
    definition = definition or read()
    with ExitStack() as things:
        office = things.enter_context(_office(site, definition))
        prepare(site.shop)
        of_host = site.kill if site.kill and isinstance(site.kill.window, HostWindow) else None
        of_worker = None if of_host else site.kill
        kills = of_host, *[None] * len(HOSTS)
        hosts = [_host(site, office, services, kill, most) for services, kill in zip(HOSTS, kills, strict=False)]
        workers = [_worker(site, office, number, None if number else of_worker) for number in range(site.workers)]
        for process in (*hosts, *workers):
            things.callback(process.stop)
        yield Own(office, things.enter_context(client(office, definition)), workers, hosts)


def schema_of(site: str) -> str:
    """Where the sagas of a site of that name are kept."""
    return f"{site}_own"


@contextmanager
def _office(site: Site, definition: Definition) -> Iterator[Office]:
    """Schema and topics."""
    database, broker, topics = site.endpoints["postgres"], site.endpoints["kafka"], Topics(f"{site.name}.own")
    schema = schema_of(site.name)
    conninfo = postgres.create_schema(database, schema)
    try:
        create(conninfo, definition)
        topics.create(broker)
        yield Office(conninfo, broker, topics, site.workers)
    finally:
        if not site.keep:
            postgres.drop_schema(database, schema)
            kafka.delete_topics(broker, topics.prefix)


def _host(site: Site, office: Office, services: tuple[str, ...], kill: RecordedKill | None, most: int) -> Worker:
    name, target = f"host-{'-'.join(services)}", partial(host, most=most)
    return site.worker(name, target, site.shop, office.topics, office.broker, services, kill)


def _worker(site: Site, office: Office, number: int, kill: RecordedKill | None) -> Worker:
    return site.worker(f"orchestrator-{number}", work, office, number, kill)
