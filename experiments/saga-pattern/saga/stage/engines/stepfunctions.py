"""Step Functions as an engine, on moto or on AWS: the state machine is order.asl.json, the workers are ours."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from saga.engines.stepfunctions.client import (
    SILENT,
    Account,
    Change,
    Execution,
    Executions,
    Plea,
    definition,
    deploy,
    make_queues,
)
from saga.engines.stepfunctions.worker import work
from saga.order import Order, Outcome
from saga.stage.engines import Ended, Site, listening
from saga.stage.killing import doomed
from shared.errors import LabError
from shared.worker import Worker

TIMEOUT = 10  # seconds of an attempt at a step
VISIBLE = 5  # seconds until the message of a worker that died comes again: longer than a batch takes
REST = 0.1  # seconds between two looks at what has ended
COMPENSATED = "FAILED", "SagaCompensated"


class StrangeEnd(LabError):
    """An execution ended as no saga does: by its own timeout, by an error in the state machine, or from outside."""


class StepFunctions:
    """Sagas on Step Functions. Whoever waits for an operator is known from the operator's queue, which this reads."""

    name = "stepfunctions"

    def __init__(self, sagas: Executions, workers: list[Worker]) -> None:
        self.sagas = sagas
        self.workers = workers
        self.parked: dict[str, Plea] = {}
        self.unreadable: list[Plea] = []
        self._found: dict[str, Ended] = {}
        self._began: dict[str, float] = {}
        self._next = 0.0

    @property
    def pids(self) -> dict[str, int]:
        alive = {worker.name: worker.process.pid or 0 for worker in self.workers if worker.alive()}
        return alive | listening("moto server", self.sagas.machine.account.url)

    def start(self, order: Order, timeout: int = TIMEOUT) -> None:
        self._began.setdefault(order.id, time.monotonic())
        self.sagas.start(order, timeout)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        """Raises StrangeEnd."""
        wanted = set(sagas)
        if (unknown := wanted - self._found.keys()) and time.monotonic() >= self._next:
            with suppress(*SILENT):  # nobody can say now
                self._look(unknown)
            self._next = time.monotonic() + REST
        parked = {saga: Ended(Outcome.PARKED, self._age(saga)) for saga in self.parked}
        return {saga: end for saga, end in (parked | self._found).items() if saga in wanted}

    def retry(self, saga: str) -> None:
        """The operator's decision, when the cause is gone. Raises KeyError for a saga that does not wait."""
        self.sagas.go_on(self.parked[saga])
        del self.parked[saga]  # not before it has been told

    def _look(self, unknown: set[str]) -> None:
        for plea in self.sagas.pleas():
            if plea.token:
                self.parked[plea.saga] = plea
            else:
                self.unreadable.append(plea)
        # On AWS this list may be a little behind: it only says whom to look at more closely.
        for saga in unknown - self.sagas.running():
            execution = self.sagas.look(saga)
            if execution and execution.status != "RUNNING":
                self._found[saga] = Ended(_outcome(saga, execution), execution.seconds)

    def _age(self, saga: str) -> float:
        return time.monotonic() - self._began.get(saga, time.monotonic())


def _outcome(saga: str, execution: Execution) -> Outcome:
    if execution.status == "SUCCEEDED":
        return Outcome.COMPLETED
    if (execution.status, execution.error) == COMPENSATED:
        return Outcome.COMPENSATED
    raise StrangeEnd(f"saga {saga!r} is {execution.status}: {execution.error} {execution.cause}")


@contextmanager
def opened(site: Site, change: Change = dict, visible_again: int = VISIBLE) -> Iterator[StepFunctions]:
    """Make the state machine `site.name`, which `change` may alter, its queues and workers; gone at the end."""
    account = Account(site.endpoints["moto"].url)
    queues = make_queues(account, site.name, visible_again)
    machine = deploy(account, site.name, queues, change(definition(queues)))
    kills = [site.kill] + [None] * (site.workers - 1)
    workers = [
        site.worker(f"{site.name}-queue-{number}", doomed, kill, work, site.shop, machine)
        for number, kill in enumerate(kills[: site.workers])
    ]
    sagas = Executions(machine)
    try:
        yield StepFunctions(sagas, workers)
    finally:
        for worker in workers:
            worker.stop()
        if not site.keep:
            sagas.remove()
