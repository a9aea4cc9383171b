"""The client: begins sagas, asks where they stand, and tells them what an operator has decided."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from saga.engines.temporal.histories import replay, written
from saga.engines.temporal.messages import CONVERTER, USUAL, Begin, Limits, Progress
from saga.engines.temporal.workflow import NEEDS_OPERATOR, OrderSaga
from saga.order import Order
from shared.errors import LabError

# How long a worker may take for one workflow task, which is milliseconds of work. It is also how long a task is lost
# that a worker took along into its death; 10 s by default.
TASK = timedelta(seconds=3)
# A server that was killed is back within seconds: calls wait for it instead of failing.
PATIENT = RetryConfig(max_interval_millis=500, max_elapsed_time_millis=60_000, max_retries=1_000)


class NoSuchWorkflow(LabError):
    """There is no saga of this id, or it has ended."""


async def connect(address: str) -> Client:
    """A client of the server at host:port, which then knows the search attribute of the sagas."""
    client = await Client.connect(address, data_converter=CONVERTER, retry_config=PATIENT, identity="saga")
    await register(client)
    return client


async def register(client: Client) -> None:
    """Without this, a saga that wants to set the attribute could not go on: its worker would try for ever."""
    wanted = {NEEDS_OPERATOR.name: IndexedValueType.INDEXED_VALUE_TYPE_BOOL}
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=wanted)
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


@dataclass(frozen=True)
class Sagas:
    """The order sagas of one shop. `name` is their task queue, and begins their workflow ids."""

    client: Client
    name: str

    @classmethod
    @asynccontextmanager
    async def opened(cls, address: str, name: str) -> AsyncIterator["Sagas"]:
        """Raises RuntimeError when no server answers."""
        yield cls(await connect(address), name)

    async def start(self, order: Order, limits: Limits = USUAL, queue: str = "", timeout: float = 0.0) -> None:
        """Begin the saga `order.id`, on another task queue if one is named. Again, it changes nothing.

        `timeout`: seconds after which the server ends it wherever it stands, with nothing undone; 0: never.
        """
        # The id is the key that makes the start idempotent, for as long as the server keeps closed workflows.
        with suppress(WorkflowAlreadyStartedError):
            await self.client.start_workflow(
                OrderSaga.run,
                Begin(order, limits),
                id=self.workflow(order.id),
                task_queue=queue or self.name,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                execution_timeout=timedelta(seconds=timeout) if timeout else None,
                task_timeout=TASK,
            )

    async def ended(self, saga: str) -> Progress:
        """Wait for its end. Raises WorkflowFailureError when the server or an operator put an end to it."""
        return await self.handle(saga).result()

    async def all_ended(self, sagas: Iterable[str]) -> dict[str, Progress]:
        """Wait until all of these have ended."""
        names = list(sagas)
        return dict(zip(names, await asyncio.gather(*map(self.ended, names)), strict=True))

    async def closed(self, saga: str) -> str:
        """Wait for its end, whatever it is; returns Temporal's word for it, such as COMPLETED or TIMED_OUT."""
        with suppress(WorkflowFailureError):
            await self.ended(saga)
        status = (await self.handle(saga).describe()).status
        return status.name if status else ""

    async def state(self, saga: str) -> Progress:
        """Where it stands. Takes a worker that can answer. Raises NoSuchWorkflow."""
        with _known(saga):
            return await self.handle(saga).query(OrderSaga.state)

    async def abort(self, saga: str, reason: str) -> None:
        """Tell it to undo what it has done. Raises NoSuchWorkflow."""
        with _known(saga):
            await self.handle(saga).signal(OrderSaga.abort, reason)

    async def mended(self, saga: str) -> None:
        """Tell it that its compensation is worth another try. Raises NoSuchWorkflow."""
        with _known(saga):
            await self.handle(saga).signal(OrderSaga.mended)

    async def cancel(self, saga: str) -> None:
        """Cancel it as any workflow is cancelled. Raises NoSuchWorkflow."""
        with _known(saga):
            await self.handle(saga).cancel()

    async def waiting(self) -> list[str]:
        """The operator's list. It lags behind the sagas a little: the server indexes in the background."""
        ours = f"WorkflowId STARTS_WITH '{self.name}/' and ExecutionStatus = 'Running'"
        found = self.client.list_workflows(f"{NEEDS_OPERATOR.name} = true and {ours}")
        return sorted([execution.id.removeprefix(f"{self.name}/") async for execution in found])

    async def history(self, saga: str) -> str:
        """All that has happened to it, as JSON."""
        return written(await self.handle(saga).fetch_history())

    async def replay(self, history: str, workflow: type) -> str:
        """Run the code on a history; returns where it does not agree. Needs no server, but a process like ours."""
        return await replay(history, workflow)

    def workflow(self, saga: str) -> str:
        """The workflow's id: shops share a server, and may have orders of the same id."""
        return f"{self.name}/{saga}"

    def handle(self, saga: str) -> WorkflowHandle[OrderSaga, Progress]:
        return self.client.get_workflow_handle_for(OrderSaga.run, self.workflow(saga))


@contextmanager
def _known(saga: str) -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise NoSuchWorkflow(f"no saga {saga!r} is running: {error.message}") from error
