"""Camunda 7 as an engine: the diagram is order.bpmn, the workers are ours."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from saga.engines.camunda.client import Camunda, CamundaError, Instance, Unavailable
from saga.engines.camunda.worker import Ask, Policy, ask, work
from saga.order import Order, Outcome
from saga.stage.engines import Ended, Site, listening
from saga.stage.killing import doomed
from shared.wait import until
from shared.worker import Worker

TIMEOUT = 60.0  # seconds of a saga until it gives up
REST = 0.1  # seconds between two looks at what has ended: a look is three queries
AWAY = 60.0  # seconds that Camunda may be away


class CamundaEngine:
    """Sagas on Camunda. A process instance that ended is COMPLETED either way; its variable `outcome` tells which."""

    name = "camunda"

    def __init__(self, camunda: Camunda, url: str, workers: list[Worker]) -> None:
        self.camunda = camunda
        self.url = url
        self.workers = workers
        self._found: dict[str, Ended] = {}
        self._next = 0.0

    @property
    def pids(self) -> dict[str, int]:
        alive = {worker.name: worker.process.pid or 0 for worker in self.workers if worker.alive()}
        return alive | listening("camunda server", self.url)

    def start(self, order: Order, timeout: float = TIMEOUT) -> None:
        """Waits for a Camunda that is away. Its keys are not unique: whether the saga is there has to be looked up."""

        def started() -> bool:
            try:
                if not self.camunda.instances([order.id]):
                    self.camunda.start(order, timeout)
                return True
            except Unavailable:  # it may have started all the same, which the next look shows
                return False

        until(f"Camunda to take saga {order.id}", started, AWAY)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        wanted, parked = set(sagas), dict[str, Ended]()
        if (unknown := wanted - self._found.keys()) and time.monotonic() >= self._next:
            with suppress(Unavailable):  # then nobody can say, and the next look may
                self._found.update(self._done(unknown))
                parked = self._parked(unknown - self._found.keys())
            self._next = time.monotonic() + REST
        return {saga: end for saga, end in (self._found | parked).items() if saga in wanted}

    def _done(self, sagas: set[str]) -> dict[str, Ended]:
        """Raises CamundaError for an instance that somebody ended from outside: its saga has no outcome."""
        done = self.camunda.instances(sagas, finished=True)
        outcomes = self.camunda.outcomes(done)
        for one in done:
            if one.id not in outcomes:
                raise CamundaError(f"saga {one.saga!r} is {one.state} and came to no end of its diagram")
        return {one.saga: Ended(Outcome(outcomes[one.id]), one.seconds) for one in done}

    def _parked(self, sagas: set[str]) -> dict[str, Ended]:
        waiting = self.camunda.incidents()
        if not waiting:
            return {}
        running = self.camunda.instances(sagas, unfinished=True)
        return {one.saga: Ended(Outcome.PARKED, _age(one)) for one in running if one.id in waiting}


def _age(instance: Instance) -> float:
    return (datetime.now(UTC) - instance.began).total_seconds()


@contextmanager
def opened(
    site: Site, policy: Policy | None = None, bpmn: bytes | None = None, how: Ask = ask
) -> Iterator[CamundaEngine]:
    """Deploy the diagram as the tenant `site.name` and start the workers; gone at the end."""
    url = site.endpoints["camunda"].url
    with Camunda(url, site.name) as camunda:
        camunda.deploy(bpmn)
        kills = [site.kill] + [None] * (site.workers - 1)
        workers = [
            site.worker(f"{site.name}-camunda-{number}", doomed, kill, work, site.shop, url, site.name, policy, how)
            for number, kill in enumerate(kills[: site.workers])
        ]
        try:
            yield CamundaEngine(camunda, url, workers)
        finally:
            for worker in workers:
                worker.stop()
            if not site.keep:
                camunda.remove()
