"""The workflow as it was before its change, and changed as it must not be. Only `workflow.py` is current.

All have the name OrderSaga: to the server they are one workflow, whose code depends on who is deployed.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from saga.engines.temporal.messages import Begin, Progress
    from saga.order import STEPS, Action

from saga.engines.temporal.workflow import STEPS_BEFORE, OrderSaga


@workflow.defn(name="OrderSaga")
class Before(OrderSaga):
    """The first version: takes the money, then looks whether there is anything to sell."""

    @workflow.run
    async def run(self, begin: Begin) -> Progress:
        return await super().run(begin)

    def _plan(self) -> tuple[Action, ...]:
        return STEPS_BEFORE


@workflow.defn(name="OrderSaga")
class Unpatched(OrderSaga):
    """WRONG: the new order of steps without a patch. What has begun by the old one finds a history not its own."""

    @workflow.run
    async def run(self, begin: Begin) -> Progress:
        return await super().run(begin)

    def _plan(self) -> tuple[Action, ...]:
        return STEPS
