"""An external-task worker: it asks Camunda for tasks, has the services carry them out, and tells what came of it.

Camunda hands a task out again when its lock has expired, whether its worker has died, or only takes longer, or could
not tell what it has done: a step may be carried out more than once, and the service's inbox makes that one effect.
Pauses between attempts, and how many there are, are the worker's business.
"""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from saga.engines.camunda.client import Camunda, CamundaError, Task, Unavailable
from saga.engines.side_by_side import side_by_side
from saga.order import STEPS, Action, Order, Reply, Request, TransientError
from saga.reading import reader, storable
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Services, Shop
from saga.windows import Hook, nowhere
from shared.errors import NotReadable

Ask = Callable[[Services, Request, Hook], Reply]
REFUSED, GIVEN_UP = "REFUSED", "GIVEN_UP"  # codes of BPMN errors
_order = reader(Order)
AWAY = 0.2  # seconds before a server that does not answer is asked again


@dataclass(frozen=True)
class Policy:
    """How a worker works. Times in seconds."""

    lock: float = 5.0  # longer than a whole batch takes, however slow the services are
    wait: float = 0.5  # of a long poll. Camunda does not wake it for a lock that expires, or a pause that ends
    batch: int = 2
    threads: int = 4
    attempts: int = 4  # of a step; after the last one the saga is compensated
    undo_attempts: int = 6  # of a compensation; after the last one an operator is needed
    pause: float = 0.1  # before the second attempt, doubled before each later one
    longest: float = 2.0

    def pause_before(self, attempt: int) -> float:
        """Seconds before attempt number 2, 3, ...: between half of the pause and all of it, by chance."""
        whole = min(self.pause * 2.0 ** (attempt - 2), self.longest)
        return whole * (1 + random.random()) / 2


def ask(services: Services, request: Request, at: Hook) -> Reply:
    """Have the service carry it out."""
    return services(request, at=at)


def work(
    shop: Shop,
    url: str,
    tenant: str,
    policy: Policy | None = None,
    how: Ask = ask,
    at: Hook = nowhere,
) -> None:
    """Work until killed, in several threads, each with its own connections."""
    policy = policy or Policy()
    names = (f"{os.getpid()}-{number}" for number in range(policy.threads))
    side_by_side([_Loop(name, shop, url, tenant, policy, at, how) for name in names])


@dataclass(frozen=True)
class _Loop:
    """What one thread does."""

    worker: str
    shop: Shop
    url: str
    tenant: str
    policy: Policy
    at: Hook
    how: Ask

    def __call__(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with self.shop.open() as services, Camunda(self.url, self.tenant) as camunda:
                    self._work(services, camunda, stop)
            except (Unavailable, psycopg.OperationalError) as error:
                print(f"{self.worker}: {error}")
                stop.wait(AWAY)

    def _work(self, services: Services, camunda: Camunda, stop: threading.Event) -> None:
        policy = self.policy
        while not stop.is_set():
            for task in camunda.fetch(self.worker, policy.batch, policy.lock, policy.wait):
                try:
                    self._carry_out(services, camunda, task)
                except CamundaError as error:  # somebody else has the task by now, or it is no longer wanted
                    print(f"{self.worker}: {task.action} of {task.saga!r} was carried out, and cannot be told: {error}")

    def _carry_out(self, services: Services, camunda: Camunda, task: Task) -> None:
        try:
            request = request_of(task)
        except NotReadable as error:
            return camunda.fail(self.worker, task, f"unreadable: {error}", retries=0)
        try:
            reply = self.how(services, request, self.at)
        except TransientError as error:
            return self._again(camunda, task, str(error))
        except IMPOSSIBLE as error:  # rolled back, and as it would be every time: for an operator, or the saga's timer
            return camunda.fail(self.worker, task, f"{type(error).__name__}: {error}", retries=0)
        if not reply.refused:
            return camunda.complete(self.worker, task)
        if request.action in STEPS:
            return camunda.give_up(self.worker, task, REFUSED, reply.refused)
        return camunda.fail(self.worker, task, reply.refused, retries=0)

    def _again(self, camunda: Camunda, task: Task, why: str) -> None:
        """The attempt came to nothing, or nobody knows: another one later, or the last word."""
        step = task.action in STEPS
        most = self.policy.attempts if step else self.policy.undo_attempts
        left = (most if task.retries is None else task.retries) - 1
        if left <= 0 and step:
            return camunda.give_up(self.worker, task, GIVEN_UP, why)
        return camunda.fail(self.worker, task, why, max(left, 0), self.policy.pause_before(most - left + 1))


def request_of(task: Task) -> Request:
    """Raises NotReadable when the task is not one that a service could carry out."""
    if not isinstance(task.order, str):
        raise NotReadable(f"its variable order is {type(task.order).__name__} and no text")
    if not task.saga:
        raise NotReadable("it names no saga: there is no business key")
    storable(task.saga)
    return Request(task.saga, Action(task.action), _order(task.order))
