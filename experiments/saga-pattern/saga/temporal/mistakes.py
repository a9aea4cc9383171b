"""WRONG, both of them, and both in tutorials: compensation registered after the call; an activity without a key."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from saga.order import UNDO, Action, Order, Reply, Request
    from saga.services.effects import charge
    from saga.temporal.activities import Activities
    from saga.temporal.messages import Begin, Progress
    from shared.faults import Hook
    from shared.postgres import Connection

from saga.temporal.workflow import OrderSaga


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
        return charge_again(self.services().connections["payments"], request, self.hook(request))


def charge_again(connection: Connection, request: Request, at: Hook) -> Reply:
    """The effect without the inbox around it, in the same windows as services.participant.perform."""
    at("before the effect")
    with connection.transaction():
        refused = "" if _once_more(connection, request.order) else charge(connection, request.order)
        at("in the transaction of the effect")
    at("after the effect")
    return Reply(request.saga, request.action, refused)


def _once_more(connection: Connection, order: Order) -> bool:
    """Take the money again, where it was taken before; returns whether it was."""
    again = connection.execute("update charges set charged = charged + 1 where order_id = %s", [order.id]).rowcount
    if again:
        connection.execute("update accounts set cents = cents - %s where customer = %s", [order.cents, order.customer])
    return bool(again)
