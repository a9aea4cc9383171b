"""Another program's workflows on a Temporal server."""

from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from saga.engines.temporal.client import Sagas
from saga.engines.temporal.histories import refusals
from saga.stage.engines.temporal import Following, TemporalEngine

AGE = timedelta(minutes=5)  # until the server ends what no worker can begin


@dataclass
class Workflows:
    """A client in another language, whose JSON nobody here has checked."""

    engine: TemporalEngine
    sagas: list[str] = field(default_factory=list)

    def begin(self, saga: str, order: bytes) -> None:
        self.engine.client.call(begin, saga, b'{"order":' + order + b"}")
        self.sagas.append(saga)

    def reasons(self) -> list[str]:
        found = [self.engine.client.call(refused, saga) for saga in self.sagas]
        return [reason for reason in found if reason]


async def begin(following: Following, saga: str, data: bytes) -> None:
    """In the client's process: a workflow with this for its input."""
    sagas, payload = following.sagas, RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))
    ident = sagas.workflow(saga)
    await sagas.client.start_workflow("OrderSaga", payload, id=ident, task_queue=sagas.name, execution_timeout=AGE)


async def refused(following: Following, saga: str) -> str:
    """Why no worker goes on with it; empty while none has refused to."""
    return next(iter(refusals(await following.sagas.history(saga))), "")


async def signal(sagas: Sagas, saga: str, name: str, data: bytes) -> None:
    """In the client's process: say this to a workflow."""
    payload = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))
    await sagas.handle(saga).signal(name, payload)
