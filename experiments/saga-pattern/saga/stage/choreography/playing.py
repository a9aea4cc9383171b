"""The services as processes: a cast of them that an experiment starts, kills and looks after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial

from saga.choreography.service import Service
from saga.stage.choreography.process import serve
from saga.stage.choreography.stage import Stage, at_rest, ended
from saga.stage.killing import RecordedKill
from saga.windows import ServiceWindow
from saga.wrong import choreographing as naive
from shared.wait import until
from shared.worker import Worker


class Kind(StrEnum):
    """How a service is written."""

    RIGHT = "outbox, inbox, correlation ids"
    BY_CUSTOMER = "correlated by customer"
    NO_INBOX = "no inbox"
    NO_OUTBOX = "no outbox"


KINDS: dict[Kind, Callable[..., Service]] = {
    Kind.RIGHT: Service,
    Kind.BY_CUSTOMER: naive.ByCustomer,
    Kind.NO_INBOX: naive.WithoutInbox,
    Kind.NO_OUTBOX: naive.WithoutOutbox,
}


class Cast:
    """The services of a stage, each in a process. `worker` is `Run.worker`, or what a test has in its place."""

    def __init__(self, stage: Stage, worker: Callable[..., Worker], kinds: Mapping[str, Kind] | None = None) -> None:
        self.stage = stage
        self.worker = worker
        self.kinds = kinds or {}
        self.workers: dict[str, Worker] = {}
        self.kills: dict[str, list[RecordedKill]] = {}  # that are still to come, by service

    def start(self, *services: str, kills: Sequence[ServiceWindow] = ()) -> "Cast":
        """Start these services, or all; each is to be killed once in each of these windows."""
        for name in services or [machine.service for machine in self.stage.machines]:
            self.launch(name, [RecordedKill(window, history=self.stage.history, process=name) for window in kills])
        return self

    def launch(self, name: str, kills: Sequence[RecordedKill]) -> None:
        """Start one service, for the first of the kills that are to come."""
        self.kills[name] = list(kills)
        kind, kill = self.kinds.get(name, Kind.RIGHT), next(iter(kills), None)
        self.workers[name] = self.worker(name, serve, self.stage.post(name), KINDS[kind], kill)

    def stop(self) -> None:
        for worker in self.workers.values():  # all are told first: each takes up to WAIT to hear it
            worker.process.terminate()
        for worker in self.workers.values():
            worker.stop()

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = 240.0) -> None:
        """Wait for a condition while those are started anew that are killed. Raises DeadlineExceeded, StartFailed."""

        def come_true() -> bool:
            self.look_after()
            return condition()

        until(what, come_true, seconds)

    def until_ended(self, count: int) -> None:
        """Until so many sagas have ended, and all were killed that are to be."""
        self.wait_for(f"{count} sagas to end", lambda: ended(self.stage) >= count and not self.left_to_kill)

    def until_rest(self, without: str = "") -> None:
        """Until nothing more happens, and all were killed that are to be. `without`: a service that is not there.

        Looked at twice: memory cannot be seen.
        """
        there = tuple(machine for machine in self.stage.machines if machine.service != without)
        stage = replace(self.stage, machines=there)
        with self.stage.shop.open() as services:
            look = partial(at_rest, stage, services.connections)
            self.wait_for("rest", lambda: not self.left_to_kill and look() and look())

    @property
    def left_to_kill(self) -> bool:
        return any(self.kills.values())

    def look_after(self) -> None:
        """Start those anew that were killed, for the next kill. Raises StartFailed where one ended by an error."""
        for name, worker in self.workers.items():
            if not worker.alive():
                worker.wait()
                self.launch(name, self.kills[name][1:])
