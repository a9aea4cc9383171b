"""What the saga has done by the services: the only place where it touches the world.

An activity is carried out at least once: a worker that dies after the effect and before the server knows of it leaves
an attempt that looks failed, and there will be another. The services make it one effect: the request's id is its key.
"""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from temporalio import activity
from temporalio.exceptions import ApplicationError

from saga.order import Reply, Request
from saga.services.shop import Services, Shop
from saga.windows import Hook, nowhere

REFUSED = "Refused"  # the type of error of a business refusal
BEAT = 0.3  # seconds between two signs of life; several fit into Limits.heartbeat


class Activities:
    """The activities of one worker. They block, so they run in its threads; every thread has its own connections."""

    def __init__(self, shop: Shop, at: Hook = nowhere) -> None:
        self.shop = shop
        self.at = at
        self._mine = threading.local()

    # Without `no_thread_cancel_exception` a cancellation is an exception that may come up between any two lines of this
    # thread, in the middle of a transaction, say. One attempt is short: it may as well come to its end.
    @activity.defn(no_thread_cancel_exception=True)
    def perform(self, request: Request) -> None:
        """Have a service carry out the request. Raises ApplicationError, not to be retried, when it is refused.

        Everything else that it raises, TransientError above all, makes Temporal try again as the retry policy says.
        """
        with beating(BEAT):
            reply = self.ask(request)
        if reply.refused:
            raise ApplicationError(reply.refused, type=REFUSED, non_retryable=True)

    def ask(self, request: Request) -> Reply:
        """The service's answer. Raises TransientError, or psycopg.OperationalError when the database is away."""
        services = self.services()
        try:
            return services(request, at=self.hook(request))
        except psycopg.OperationalError:
            # The attempt is lost. Whichever thread makes the next one: this thread opens new connections for its next.
            self._mine.open.close()
            del self._mine.services
            raise

    def hook(self, request: Request) -> Hook:
        """Where experiments let something happen in the middle of this request."""
        return self.at

    def services(self) -> Services:
        """The calling thread's connections to the services."""
        if not hasattr(self._mine, "services"):
            opened = ExitStack()
            self._mine.services = opened.enter_context(self.shop.open())
            self._mine.open = opened
        services: Services = self._mine.services
        return services


@contextmanager
def beating(every: float) -> Iterator[None]:
    """Heartbeats from a second thread while this one is busy: they say that the process lives, and nothing more.

    Whether it is stuck is for the start-to-close timeout to find out. What takes less than `every` seconds, as nearly
    everything here does, sends none and costs the server nothing.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(every):
            activity.heartbeat()

    # To which activity a heartbeat belongs is in a context variable, and a new thread has none of them.
    beater = threading.Thread(target=contextvars.copy_context().run, args=[beat], daemon=True)
    beater.start()
    try:
        yield
    finally:
        done.set()
        beater.join()
