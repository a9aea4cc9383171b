"""What the experiment on Temporal is played on: a server, a client, shops, and workers that die in a given window."""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from saga.engines.temporal.client import Sagas
from saga.engines.temporal.messages import USUAL, Limits, Progress
from saga.engines.temporal.worker import Job, work
from saga.order import SERVICE, Action, Order, Request, World
from saga.services.invariant import STATES
from saga.services.participant import answer
from saga.services.shop import Shop
from saga.stage.apart import Apart
from saga.stage.fates import Fate, Fates, mend, open_shop
from saga.stage.killing import RecordedKill, doomed
from saga.windows import EffectWindow
from shared import postgres
from shared.errors import FaultNotFired
from shared.experiment import Run
from shared.history import History
from shared.servers.server import Endpoint
from shared.worker import Worker

WORLD = World(customers=100, products=100)
CALM = 5.0  # seconds without a sign of life that are no death yet where tests make a machine stand still for some


def order(name: str, number: int) -> Order:
    """An order of a customer and a product of its own: no two of them wait for each other's locks."""
    return Order(name, WORLD.customer_names()[number], WORLD.product_names()[number], 1, 500)


def slug(text: str) -> str:
    """The text as a part of names."""
    return re.sub(r"\W+", "-", text)


@dataclass(frozen=True)
class Case:
    """One saga on a task queue of its own, whose worker is killed at the nth request that passes the window."""

    order: Order
    window: EffectWindow
    nth: int
    job: Job
    limits: Limits = USUAL

    def kill(self, history: Path) -> RecordedKill:
        return RecordedKill(self.window, nth=self.nth, history=history, process=self.order.id)


class Stage:
    """A Temporal server with what belongs to this run on it."""

    def __init__(self, run: Run, server: Endpoint, name: str) -> None:
        self.run = run
        self.server = server
        self.name = f"{run.name}-{name}"
        self.client = Apart(run.worker, f"{name}-client", partial(Sagas.opened, server.url, self.name))
        run.cleanup(self.client.close)
        self._workers = 0
        self.heartbeat = run.pick(CALM, USUAL.heartbeat, USUAL.heartbeat)

    def shop(self, name: str, fates: dict[tuple[str, Action], Fate] | None = None) -> Shop:
        """Four services, in which nothing goes wrong but what is listed."""
        return open_shop(self.run, slug(name), Fates(steps={}, undos={}, fixed=fates or {}), WORLD)

    def job(self, shop: Shop, queue: str, **what: Any) -> Job:
        return Job(self.server.url, f"{self.name}-{slug(queue)}", shop, **what)

    def worker(self, job: Job, kill: RecordedKill | None = None) -> Worker:
        """A process that works on the job, and is killed if it is to be."""
        self._workers += 1
        return self.run.worker(f"{job.queue.removeprefix(f'{self.name}-')}-{self._workers}", doomed, kill, work, job)

    def start(self, orders: Iterable[Order], queue: str, limits: Limits = USUAL, timeout: float = 0.0) -> None:
        """Begin them, with the heartbeat of this stage."""
        limits = structs.replace(limits, heartbeat=self.heartbeat)
        for one in orders:
            self.client.call(Sagas.start, one, limits, queue=queue, timeout=timeout)

    def ended(self, orders: Iterable[Order]) -> dict[str, Progress]:
        """Wait until they have ended."""
        return self.client.call(Sagas.all_ended, [one.id for one in orders])

    def state(self, one: Order) -> Progress:
        return self.client.call(Sagas.state, one.id)

    def history(self, one: Order) -> str:
        return self.client.call(Sagas.history, one.id)

    def survive(self, cases: Sequence[Case], history: Path) -> list[float]:
        """Begin the sagas; each one's worker dies in its window, and another takes its place.

        Returns the seconds from each death until the saga has ended. Raises FaultNotFired when a worker lived on.
        """
        victims = [self.worker(case.job, case.kill(history)) for case in cases]
        for case in cases:
            self.start([case.order], case.job.queue, case.limits)
        for worker in victims:
            worker.wait()
        with self.working([case.job for case in cases]):
            ends = self.client.call(moments, [case.order.id for case in cases])
        deaths = {fault.process: fault.at / 1e9 for fault in History.read(history).faults}
        if missing := {case.order.id for case in cases} - deaths.keys():
            raise FaultNotFired(f"the workers of {', '.join(sorted(missing))} were not killed")
        return [ends[case.order.id] - deaths[case.order.id] for case in cases]

    @contextmanager
    def working(self, jobs: Iterable[Job]) -> Iterator[None]:
        """Workers for the time of the block."""
        with killed_in_the_end(self.worker(job) for job in jobs):
            yield


@contextmanager
def killed_in_the_end(workers: Iterable[Worker]) -> Iterator[None]:
    """They are idle by then, and many. Also where the block raises, and where one of them cannot be started."""
    with ExitStack() as things:
        for worker in workers:
            things.callback(worker.kill)
        yield


async def moments(sagas: Sagas, names: list[str]) -> dict[str, float]:
    """The moment at which each of these ends, by the monotonic clock that all processes here share."""

    async def moment(name: str) -> float:
        await sagas.ended(name)
        return time.monotonic()

    return dict(zip(names, await asyncio.gather(*map(moment, names)), strict=True))


async def beaten(sagas: Sagas, saga: str) -> float:
    """Seconds from the start of the attempt that is running to its last heartbeat; 0 while there was none."""
    description = await sagas.handle(saga).describe()
    for running in description.raw_description.pending_activities:
        if running.HasField("last_heartbeat_time"):
            return (running.last_heartbeat_time.ToDatetime() - running.last_started_time.ToDatetime()).total_seconds()
    return 0.0


def visible(shop: Shop, one: Order) -> set[str]:
    """The services in which something of this order is committed, whatever its status."""
    found = set()
    for service, query in STATES.items():
        with postgres.connect(shop.conninfos[service]) as connection:
            if one.id in dict(connection.execute(query).fetchall()):
                found.add(service)
    return found


def answered(shop: Shop, one: Order, action: Action) -> bool:
    """Whether the service has done it, or has refused it."""
    with postgres.connect(shop.conninfos[SERVICE[action]]) as connection:
        return answer(connection, Request(one.id, action, one)) is not None


def repair(shop: Shop, one: Order, action: Action) -> None:
    """What the operator does about a broken step, before anybody is told of it."""
    with postgres.connect(shop.conninfos[SERVICE[action]]) as connection:
        mend(connection, Request(one.id, action, one).id)
