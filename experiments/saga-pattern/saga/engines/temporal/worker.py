"""The worker: a process that carries out workflows and activities. Start as many as are wanted; kill any of them."""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from saga.engines.temporal.activities import Activities
from saga.engines.temporal.client import connect
from saga.engines.temporal.workflow import OrderSaga
from saga.services.shop import Shop
from saga.windows import Hook, nowhere


@dataclass(frozen=True)
class Job:
    """What a worker works on: a task queue of a server, with workflows of this class and activities like these.

    A worker may leave one of the two to others.
    """

    address: str  # host:port
    queue: str
    shop: Shop
    workflow: type | None = OrderSaga
    activities: Callable[[Shop, Hook], Activities] | None = Activities
    threads: int = 8  # activities at the same time; each thread holds a connection to each of the four databases


def work(job: Job, at: Hook = nowhere) -> None:
    """Work until SIGTERM, then let running activities end. To be the target of a process.

    Not to be called in a process that will end in the ordinary way: the client's threads may still call into an
    interpreter that is shutting down, which then aborts (seen in 10 to 20 of 100 exits). Processes made by
    multiprocessing end by `os._exit` and have no such moment.
    """
    asyncio.run(_work(job, at))


async def _work(job: Job, at: Hook) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with ThreadPoolExecutor(job.threads) as pool:
        async with made(await connect(job.address), job, pool, at):
            await stop.wait()


def made(client: Client, job: Job, pool: ThreadPoolExecutor, at: Hook = nowhere) -> Worker:
    """A worker that works in `async with`. Its activities run in the pool."""
    return Worker(
        client,
        task_queue=job.queue,
        workflows=[job.workflow] if job.workflow else [],
        activities=[job.activities(job.shop, at).perform] if job.activities else [],
        activity_executor=pool,
        max_concurrent_activities=job.threads,
        # A workflow's next task is first offered to the worker that has it in memory. If that one is dead, this is how
        # long everybody waits for it; 10 s by default.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        # Heartbeats are held back for up to 80 % of their timeout. That leaves no room for a slow machine.
        max_heartbeat_throttle_interval=timedelta(seconds=0.5),
        # The default is a hash over the bytecode of every loaded module, at every start.
        build_id="order-saga",
    )
