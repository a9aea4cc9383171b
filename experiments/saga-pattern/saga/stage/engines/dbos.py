"""DBOS as an engine: nothing but its workers, and a database on the labs' Postgres."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dbos import DBOS, DBOSClient, EnqueueOptions
from psycopg import sql

from saga.engines.dbos import APP, CLASS, INSTANCE, QUEUE, VERSION, WORKFLOW, System, work
from saga.order import Order, Outcome
from saga.services.shop import Shop
from saga.stage.engines import Ended, Site
from saga.stage.killing import RecordedKill, doomed
from saga.windows import EffectWindow
from shared import codec, postgres
from shared.errors import ConfigurationError
from shared.history import History
from shared.servers.server import Endpoint
from shared.worker import Worker

# Seconds between two looks at the queue, a second by default: a saga that is alone waits for half of it.
POLLING = 0.02
OVER = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass
class Dbos:
    """The engine that is up."""

    client: DBOSClient
    system: System
    workers: list[Worker]
    name: str = "DBOS"

    @property
    def pids(self) -> dict[str, int]:
        return {worker.name: worker.process.pid or 0 for worker in self.workers}

    def start(self, order: Order) -> None:
        # Text, and not an Order, which DBOS would pickle: another program, or a later one, can write and read it.
        self.enqueue(order.id, codec.encode(order).decode())

    def enqueue(self, saga: str, order: str) -> None:
        """Begin a saga. Its order is JSON, as it should be."""
        options: EnqueueOptions = {
            "queue_name": QUEUE,
            "workflow_name": WORKFLOW,
            "workflow_id": saga,
            "class_name": CLASS,
            "instance_name": INSTANCE,
            "app_version": VERSION,
        }
        self.client.enqueue(options, order)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        """A saga that ended in an error waits for an operator: `retry` is what they do about it."""
        if not (wanted := list(sagas)):
            return {}
        found = self.client.list_workflows(workflow_ids=wanted, status=OVER, load_input=False)
        return {
            one.workflow_id: Ended(
                one.output if isinstance(one.output, Outcome) else Outcome.PARKED,
                ((one.completed_at or 0) - (one.created_at or 0)) / 1000,
            )
            for one in found
        }

    def retry(self, saga: str) -> None:
        """What an operator does when the cause is gone: go on with the step that failed, and none of those before."""
        failed = max((step["function_id"] for step in self.client.list_workflow_steps(saga)), default=1)
        self.client.rewind_workflow(saga, start_step=failed)


def once_doomed(kill: RecordedKill | None, shop: Shop, system: System, number: int) -> None:
    """A process: a worker whose kill is for its first life. One that is started again lives on."""
    doomed(None if kill and _fired(kill) else kill, work, shop, system, number)


def _fired(kill: RecordedKill) -> bool:
    note = f"SIGKILL {kill.window}"
    return kill.history.exists() and any(fault.note == note for fault in History.read(kill.history).faults)


@contextmanager
def opened(site: Site, **limits: int) -> Iterator[Dbos]:
    """Bring it up; `limits` are those of `System`. A kill in an EffectWindow is of the first worker.

    Raises ConfigurationError for other windows.
    """
    if site.kill and not isinstance(site.kill.window, EffectWindow):
        raise ConfigurationError(f"a worker of DBOS has no window {site.kill.window!r}")
    with ExitStack() as things:
        system = System(things.enter_context(_database(site.endpoints["postgres"], f"{site.name}_dbos")), **limits)
        DBOS.migrate(system.url)
        client, workers = DBOSClient(system_database_url=system.url, application_name=APP), list[Worker]()
        things.callback(client.destroy)
        client.register_queue(QUEUE, worker_concurrency=system.at_once, polling_interval_sec=POLLING)
        for number in range(site.workers):
            kill = None if number else site.kill
            workers.append(site.worker(f"dbos-{number}", once_doomed, kill, site.shop, system, number))
            things.callback(workers[-1].stop)
        yield Dbos(client, system, workers)


@contextmanager
def _database(server: Endpoint, name: str) -> Iterator[str]:
    """A database for the time of the block; its URL.

    The migrations of DBOS create indexes concurrently: in a database that others use as well, each would wait until the
    others' transactions have ended.
    """
    identifier = sql.Identifier(name)
    with postgres.connect(server.url) as connection:
        connection.execute(sql.SQL("create database {}").format(identifier))
        try:
            yield postgres.url(server.url, dbname=name)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(identifier))
