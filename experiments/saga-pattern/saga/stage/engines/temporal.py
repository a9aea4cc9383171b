"""Temporal as an engine: its server, workers of ours, and a client that follows every saga to its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from saga.engines.temporal.client import Sagas
from saga.engines.temporal.messages import USUAL, Limits
from saga.engines.temporal.worker import Job, work
from saga.order import Order, Outcome
from saga.stage.apart import Apart
from saga.stage.engines import Ended, Engine, Site, listening
from saga.stage.killing import doomed
from shared.servers.server import Endpoint
from shared.worker import Worker

LOOK = 0.5  # seconds between two looks at the operator's list
OPERATOR = 2.0  # seconds after which a saga that has not ended may be on it


class Following:
    """In the client's process: waits for the end of every saga that it began."""

    def __init__(self, sagas: Sagas, limits: Limits) -> None:
        self.sagas = sagas
        self.limits = limits
        self._began: dict[str, float] = {}
        self._ends: dict[str, asyncio.Task[Ended]] = {}
        self._waiting: set[str] = set()
        self._looked = 0.0

    @classmethod
    @asynccontextmanager
    async def opened(cls, address: str, name: str, limits: Limits) -> AsyncIterator["Following"]:
        async with Sagas.opened(address, name) as sagas:
            yield cls(sagas, limits)

    async def start(self, order: Order) -> None:
        """Begin the saga, once."""
        if order.id in self._ends:
            return
        self._began[order.id] = time.monotonic()
        await self.sagas.start(order, self.limits)
        # One long poll for each saga: nobody asks again and again.
        self._ends[order.id] = asyncio.create_task(self._end(order.id))

    async def ended(self, names: list[str]) -> dict[str, Ended]:
        """Those of these that have ended, or wait for an operator. Raises WorkflowFailureError as the saga does."""
        ours = [name for name in names if name in self._ends]
        done = {name: self._ends[name].result() for name in ours if self._ends[name].done()}
        await self._look([name for name in ours if name not in done])
        return {name: self._now(name, Outcome.PARKED) for name in ours if name in self._waiting} | done

    async def _look(self, open_: list[str]) -> None:
        """Renew the operator's list, where there may be something on it."""
        now = time.monotonic()
        if now - self._looked > LOOK and any(now - self._began[name] > OPERATOR for name in open_):
            self._waiting = set(await self.sagas.waiting())
            self._looked = now

    async def _end(self, name: str) -> Ended:
        progress = await self.sagas.ended(name)
        return self._now(name, Outcome(progress.status))

    def _now(self, name: str, outcome: Outcome) -> Ended:
        return Ended(outcome, time.monotonic() - self._began[name])


class TemporalEngine:
    """Behind the port of the engines."""

    name = "temporal"

    def __init__(self, client: Apart[Following], server: Endpoint, workers: list[Worker]) -> None:
        self.client = client
        self.server = server
        self.workers = workers

    @property
    def pids(self) -> dict[str, int]:
        """The workers and, where it runs on this machine as a process that we may see, the server."""
        found = {worker.name: worker.process.pid or 0 for worker in self.workers if worker.alive()}
        return found | listening("temporal server", f"//{self.server.url}")  # its address is host:port

    def start(self, order: Order) -> None:
        self.client.call(Following.start, order)

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        return self.client.call(Following.ended, list(sagas))


@contextmanager
def opened(site: Site, limits: Limits = USUAL) -> Iterator[Engine]:
    """Temporal at the site: `site.name` is the task queue of its workers."""
    server = site.endpoints["temporal"]
    following = partial(Following.opened, server.url, site.name, limits)
    with Apart(site.worker, f"{site.name}-client", following) as client:
        workers = [_worker(site, server, number) for number in range(site.workers)]
        try:
            yield TemporalEngine(client, server, workers)
        finally:
            for worker in workers:
                worker.stop()


def _worker(site: Site, server: Endpoint, number: int) -> Worker:
    kill, job = None if number else site.kill, Job(server.url, site.name, site.shop)
    return site.worker(f"{site.name}-worker-{number}", doomed, kill, work, job)
