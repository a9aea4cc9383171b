"""WRONG, both of them, and both in tutorials: compensation registered after the call; an activity without a key."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from saga.engines.temporal.activities import Activities
    from saga.engines.temporal.messages import Begin, Progress
    from saga.order import UNDO, Action, Reply, Request
    from saga.windows import EffectWindow, Hook
    from saga.wrong.keyless import charge_again
    from shared.postgres import Connection

from saga.engines.temporal.workflow import OrderSaga


@workflow.defn(name="OrderSaga")
class CompensateAfter(OrderSaga):
    """Registers a compensation when its step has succeeded. A step that did and could not say so is never undone."""

    @workflow.run
    async def run(self, begin: Begin) -> Progress:
        return await super().run(begin)

    async def _step(self, step: Action) -> None:
        await self._ask(step, self._limits.attempts)
        self._undo.append(UNDO[step])


class Keyless(Activities):
    """Calls a payment service that takes no idempotency key: every attempt charges the customer."""

    def ask(self, request: Request) -> Reply:
        if request.action is not Action.CHARGE:
            return super().ask(request)
        return charge_each_time(self.services().connections["payments"], request, self.hook(request))


def charge_each_time(connection: Connection, request: Request, at: Hook) -> Reply:
    """The effect without the inbox around it, in the same windows as services.participant.perform."""
    at(EffectWindow.BEFORE)
    with connection.transaction():
        refused = charge_again(connection, request.order)
        at(EffectWindow.IN)
    at(EffectWindow.AFTER)
    return Reply(request.saga, request.action, refused)
