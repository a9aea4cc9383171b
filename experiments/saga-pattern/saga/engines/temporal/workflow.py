"""The order saga as a workflow: plain Python that outlives the process it runs in.

The server keeps all that happened to a workflow in its history: each result of an activity, each timer, each signal. A
worker that takes a workflow over runs this code again from the top and gives it what the history has, until it
stands where the dead one stood. So the code must decide the same whenever it sees the same: no clock, no chance, no I/O
in this file. All of that is in activities.

    running ──> completed
       │ refused, attempts used up, deadline, abort, cancel
       v
    compensating ──> compensated
       │ attempts used up            ʌ
       └────> parked ──── mended ────┘

Sources: Temporal's documentation, "Failure detection", "Versioning" and "Python SDK sandbox"; the saga of Garcia-Molina
and Salem, SIGMOD 1987.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

# A sandbox loads this file anew for every workflow, to find out what is not deterministic. These modules are passed
# through as they are: that saves time, and an Order here is the class that the data converter makes.
with workflow.unsafe.imports_passed_through():
    from saga.engines.temporal.activities import REFUSED, Activities
    from saga.engines.temporal.messages import Begin, Phase, Progress
    from saga.order import STEPS, UNDO, Action, Request

# By it an operator finds the sagas that wait: temporal workflow list --query 'SagaNeedsOperator = true'
NEEDS_OPERATOR = SearchAttributeKey.for_bool("SagaNeedsOperator")
STOCK_FIRST = "stock-before-money"  # the name of a change of this code; see `_plan`
STEPS_BEFORE = Action.PLACE, Action.CHARGE, Action.RESERVE, Action.SHIP

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=5)


@workflow.defn(name="OrderSaga")
class OrderSaga:
    """Place an order, reserve, charge, ship; or undo, in reverse order, whatever of it may have been done."""

    # With `init` this is given the input, too: a signal or query may be handled before `run` has begun.
    @workflow.init
    def __init__(self, begin: Begin) -> None:
        self._order, self._limits = begin.order, begin.limits
        self._status = Phase.RUNNING
        self._doing: Action | None = None
        self._undo: list[Action] = []
        self._reason = ""
        self._abort = ""  # why the operator wants it undone
        self._mended = False

    @workflow.run
    async def run(self, begin: Begin) -> Progress:
        """The whole saga. Its result is a state, never an error: being undone is one of two good ends."""
        self._reason = await self._carry_out()
        if self._reason:
            await self._undo_all()
        self._status = Phase.COMPENSATED if self._reason else Phase.COMPLETED
        return self.state()

    # What is said to it from outside.

    @workflow.signal
    def abort(self, reason: str) -> None:
        """The operator wants it undone. When all steps are done, or it is being undone, this changes nothing."""
        self._abort = f"aborted: {reason}"

    @workflow.signal
    def mended(self) -> None:
        """The operator has removed what kept a compensation from being done: try it again."""
        # Not an Event that is cleared when it parks: word that came a moment too early must not get lost. At worst
        # a compensation is tried for one more round of attempts.
        self._mended = True

    @workflow.query
    def state(self) -> Progress:
        """Where it stands. A query reads the workflow's fields and leaves nothing in its history."""
        return Progress(self._status, self._doing, tuple(reversed(self._undo)), self._reason)

    # Forward.

    async def _carry_out(self) -> str:
        """Do the steps; returns why they have to be undone, or nothing."""
        steps = asyncio.create_task(self._steps())
        try:
            # The deadline is a timer of ours. The workflow's own execution timeout is no substitute for it: the server
            # would end the workflow wherever it stands, and what is done would stay done.
            await workflow.wait_condition(
                lambda: steps.done() or self._abort != "",
                timeout=self._limits.deadline,
                timeout_summary="deadline of the steps",
            )
        except TimeoutError:
            self._abort = "out of time"
        except asyncio.CancelledError:  # `temporal workflow cancel`, which would leave things half done, too
            self._abort = "cancelled"
        # No effect on steps that are done. Else this gives up the activity without waiting for it: it may run on and
        # be done after all. Its compensation is registered, and either comes after it or keeps it from being done.
        steps.cancel()
        try:
            await steps
        except ActivityError as error:
            return self._abort or _why(error)
        except asyncio.CancelledError:  # an answer came at the same time, and the next activity was not sent yet
            return self._abort or "cancelled"
        return ""

    async def _steps(self) -> None:
        for step in self._plan():
            await self._step(step)

    def _plan(self) -> tuple[Action, ...]:
        """The steps in their order, which was another one when the first sagas began."""
        # True for sagas that begin now, and leaves a marker in their history. A saga that began before the change has
        # none: it goes on by the old order, on which its history was made. When no such saga is left, this becomes
        # `workflow.deprecate_patch(STOCK_FIRST)`, and when none is left that has the marker, it goes.
        if workflow.patched(STOCK_FIRST):
            return STEPS
        return STEPS_BEFORE

    async def _step(self, step: Action) -> None:
        # BEFORE the call. When the call fails, its step may be done all the same: the answer was lost, or whoever
        # should have brought it was killed. What nobody knows has to be undone, too.
        self._undo.append(UNDO[step])
        try:
            await self._ask(step, self._limits.attempts)
        except ActivityError as error:
            # Only a refusal is certain: the service says itself that nothing was done, and never will be.
            if isinstance(error.cause, ApplicationError) and error.cause.type == REFUSED:
                self._undo.remove(UNDO[step])
            raise

    # Backward.

    async def _undo_all(self) -> None:
        """Undo, the last first. Cannot be cancelled: there is nothing behind it that would undo the rest."""
        self._status = Phase.COMPENSATING
        undoing = asyncio.create_task(self._undo_each())
        try:
            await asyncio.shield(undoing)
        except asyncio.CancelledError:  # there is one request to cancel in the life of a workflow
            await undoing

    async def _undo_each(self) -> None:
        while self._undo:
            await self._insist(self._undo[-1])
            self._undo.pop()

    async def _insist(self, undo: Action) -> None:
        """Ask until it is done: for a while by ourselves, and then whenever the operator says that it is worth it."""
        while True:
            try:
                return await self._ask(undo, self._limits.undo_attempts)
            except ActivityError as error:
                await self._park(_why(error))

    async def _park(self, why: str) -> None:
        because, self._reason, self._status = self._reason, why, Phase.PARKED
        workflow.upsert_search_attributes([NEEDS_OPERATOR.value_set(True)])
        # For days if need be. While it waits it is a row in the server's database and nothing else.
        await workflow.wait_condition(lambda: self._mended)
        workflow.upsert_search_attributes([NEEDS_OPERATOR.value_unset()])
        self._mended, self._reason, self._status = False, because, Phase.COMPENSATING

    # Both ways.

    async def _ask(self, action: Action, attempts: int) -> None:
        """Have a service do it, again and again until it answers. Raises ActivityError: refused, or nobody knows."""
        self._doing = action
        try:
            await self._attempt(action, attempts)
        finally:
            self._doing = None

    async def _attempt(self, action: Action, attempts: int) -> None:
        await workflow.execute_activity_method(
            Activities.perform,
            # The same request at every attempt, with an id made of saga and action: that makes it safe to ask again.
            Request(self._order.id, action, self._order),
            activity_id=action.value,  # its name in the history
            start_to_close_timeout=timedelta(seconds=self._limits.attempt),
            heartbeat_timeout=timedelta(seconds=self._limits.heartbeat),
            retry_policy=RetryPolicy(
                initial_interval=FIRST_PAUSE,
                backoff_coefficient=2.0,
                maximum_interval=LONGEST_PAUSE,
                maximum_attempts=attempts,
            ),
        )


def _why(error: ActivityError) -> str:
    """What happened to an activity, in words. The error itself only says that it failed; its cause says how."""
    if is_cancelled_exception(error):
        return f"{error.activity_id}: cancelled"
    return f"{error.activity_id}: {error.cause or error}"
