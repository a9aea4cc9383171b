"""The saga by DBOS: a library that writes down in Postgres how far an ordinary function has come, step by step.

There is no server. A worker takes sagas from a queue in the database and keeps the answer of every step there. A worker
that died reads the answers when it starts anew, goes through the function again as far as they reach, and repeats the
step that it was in: its request has the same id, so the service does it once. A step that fails for good is undone with
those before it. A saga whose compensation fails for good ends as an error, and so does one whose order cannot be read;
once the cause is gone, the operator rewinds it.

DBOS documentation: "Workflows", "Steps", "Queues", "Self-hosting".
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
from dbos import DBOS, DBOSConfig, DBOSConfiguredInstance, StepOptions, error

from saga.order import STEPS, UNDO, Action, Order, Outcome, Reply, Request, TransientError
from saga.reading import reader
from saga.services.shop import Services, Shop
from saga.windows import Hook, nowhere
from shared.errors import LabError, NotReadable

APP, VERSION, QUEUE, CLASS, INSTANCE, WORKFLOW = "saga-lab", "1", "orders", "OrderSaga", "shop", "carry_out"
Ask = Callable[[Request], Reply]
_order = reader(Order)


@dataclass(frozen=True)
class System:
    """The database of DBOS, how often a compensation is tried, and the limits of a worker. Can be sent to workers."""

    url: str
    undo_attempts: int = 8
    at_once: int = 20  # sagas that a worker has in hand, a thread each
    lent: int = 8  # sets of connections to the services that these threads share

    def config(self, number: int) -> DBOSConfig:
        """Of worker `number`: it recovers what it had in hand itself, which the executor's id tells."""
        return {
            "name": APP,
            "application_version": VERSION,
            "executor_id": f"worker-{number}",
            "system_database_url": self.url,
            "run_migrations": False,
            "log_level": "ERROR",  # a warning with a stack trace per attempt, otherwise
        }


class Impossible(LabError):
    """What a service says would go wrong again, whoever asks again. It may be what DBOS writes down: text only."""


def try_again(problem: BaseException) -> bool:
    return not isinstance(problem, Impossible)


@contextmanager
def told_apart() -> Iterator[None]:
    """Raises Impossible instead of whatever a step raises that is not transient.

    Within the step: an error of DBOS itself, outside of it, is no reason to undo anything.
    """
    try:
        yield
    except (TransientError, psycopg.OperationalError):
        raise
    except Exception as problem:
        raise Impossible(f"{type(problem).__name__}: {problem}") from problem


@DBOS.dbos_class(CLASS)
class OrderWorkflow(DBOSConfiguredInstance):
    """The saga as a function. It must do the same on the same answers, since it is gone through again."""

    def __init__(self, ask: Ask, undo_attempts: int) -> None:
        super().__init__(INSTANCE)
        self.ask = ask
        self.undo_attempts = undo_attempts

    @DBOS.workflow(name=WORKFLOW)
    def carry_out(self, text: str) -> Outcome:
        """Carry out an order, which is JSON, and whose id is the workflow's, too; returns how it ended.

        Raises Impossible, which ends the workflow as an error, when that is no order.
        """
        try:
            order = _order(text)
        except NotReadable as problem:
            raise Impossible(f"the order cannot be read: {problem}") from problem
        begun: list[Action] = []
        for action in STEPS:
            begun.append(action)  # before the call: what nobody knows the outcome of is undone as well
            try:
                reply = self.step(action, order, attempts=5)
            except (error.DBOSMaxStepRetriesExceeded, Impossible):
                return self.undo(begun, order)
            if reply.refused:
                return self.undo(begun[:-1], order)
        return Outcome.COMPLETED

    def undo(self, begun: list[Action], order: Order) -> Outcome:
        """Backwards. Raises as `step` does, which ends the workflow: what is undone stays undone."""
        for action in reversed(begun):
            self.step(UNDO[action], order, self.undo_attempts)
        return Outcome.COMPENSATED

    def step(self, action: Action, order: Order, attempts: int) -> Reply:
        """Ask a service, once where the answer is known. Its name in the database is the action's.

        Raises DBOSMaxStepRetriesExceeded and Impossible: nobody knows whether it was done.
        """
        options: StepOptions = {
            "name": action.value,
            "retries_allowed": True,
            "max_attempts": attempts,
            "interval_seconds": 0.1,
            "backoff_rate": 2.0,
            "should_retry": try_again,
        }
        return DBOS.run_step(options, self.ask, Request(order.id, action, order))


class Counter:
    """The services for the threads of a process: each has connections of its own while it asks."""

    def __init__(self, shop: Shop, things: ExitStack, lent: int) -> None:
        self._shop = shop
        self._things = things
        # The one used last is lent first; None stands for one that is not open yet.
        self._free: queue.LifoQueue[Services | None] = queue.LifoQueue()
        for _ in range(lent):
            self._free.put(None)

    @contextmanager
    def lent(self) -> Iterator[Services]:
        services = self._free.get()
        try:
            services = services or self._things.enter_context(self._shop.open())
            yield services
        finally:
            broken = services and any(connection.broken for connection in services.connections.values())
            self._free.put(None if broken else services)


def work(shop: Shop, system: System, number: int, at: Hook = nowhere) -> None:
    """A process: worker `number`, from 0, until it is ended by a signal. None of them needs to be handled."""
    with ExitStack() as things:
        counter = Counter(shop, things, system.lent)

        def ask(request: Request) -> Reply:
            with told_apart(), counter.lent() as services:
                return services(request, at=at)

        DBOS(config=system.config(number))
        OrderWorkflow(ask, system.undo_attempts)
        DBOS.launch()
        threading.Event().wait()
