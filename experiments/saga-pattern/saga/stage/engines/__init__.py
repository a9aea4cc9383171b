"""The engines that run the same saga, behind one interface. The choreography is in a package of its own.

Every engine sends its requests to the four services of the shop (`saga.services`), with the ids that make them
idempotent. It compensates whatever may have been done, in reverse order, by its own means.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import psutil

from saga.order import Order, Outcome
from saga.stage.fates import FatedShop
from saga.stage.killing import RecordedKill
from shared.errors import DeadlineExceeded
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

PATIENCE = 60.0  # seconds after which a saga is called stuck


@dataclass(frozen=True)
class Ended:
    """A saga that ended; seconds from its start to its end, by the clock of the engine or of who asked."""

    outcome: Outcome
    seconds: float


class Engine(Protocol):
    """An engine that is up, with its workers. Its methods are called from one thread."""

    name: str

    @property
    def workers(self) -> list[Worker]:
        """Our processes, which may be killed and started again."""
        ...

    @property
    def pids(self) -> dict[str, int]:
        """Every process that carries out sagas, by a name: workers, and servers of the engine's own (no database)."""
        ...

    def start(self, order: Order) -> None:
        """Begin the saga `order.id`; returns when the engine will not forget it. Again, it changes nothing."""
        ...

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        """Those of these sagas that have ended by now. Cheap enough to be asked again and again."""
        ...


@dataclass(frozen=True)
class Site:
    """What an engine is brought up with. `name` begins the name of whatever it makes on shared servers."""

    shop: FatedShop
    name: str
    endpoints: Mapping[str, Endpoint]
    folder: Path  # of logs, and files of servers
    worker: Callable[..., Worker]  # (name, function, *arguments): a started process, as `Run.worker`
    workers: int = 1
    kill: RecordedKill | None = None  # of the first worker
    keep: bool = False  # what is made on shared servers stays, for a look


# How an engine is brought up, and taken down at the end of the block: the function `opened` of each module here.
Opener = Callable[[Site], AbstractContextManager[Engine]]


def wait(engine: Engine, sagas: Iterable[str], seconds: float = 60.0) -> dict[str, Ended]:
    """Wait until all of them have ended. Raises DeadlineExceeded."""
    waited, found = set(sagas), dict[str, Ended]()

    def all_ended() -> bool:
        found.update(engine.ended(waited - found.keys()))
        return len(found) == len(waited)

    until(f"{len(waited)} sagas of {engine.name} to end", all_ended, seconds)
    return found


def await_ends(engine: Engine, sagas: Iterable[str], patience: float = PATIENCE) -> dict[str, Ended]:
    """Those of these sagas that end in time: a saga that is stuck is a finding, and no reason to stop."""
    waited = list(sagas)
    try:
        return wait(engine, waited, patience)
    except DeadlineExceeded:
        return engine.ended(waited)


def drive(engine: Engine, orders: Iterable[Order], concurrent: int, seconds: float = 120.0) -> dict[str, Ended]:
    """Carry out all orders, at most so many at once. Raises DeadlineExceeded when the sagas stand still so long."""
    open_now, found = set[str](), dict[str, Ended]()

    def room(free: int) -> bool:
        done = engine.ended(open_now)
        found.update(done)
        open_now.difference_update(done)
        return len(open_now) <= concurrent - free

    for order in orders:
        if len(open_now) >= concurrent:
            until(f"room for {order.id} in {engine.name}", lambda: room(1), seconds)
        engine.start(order)
        open_now.add(order.id)
    until(f"{len(open_now)} sagas of {engine.name} to end", lambda: room(concurrent), seconds)
    return found


def listening(name: str, url: str) -> dict[str, int]:
    """{name: process id} of who listens at the address; empty where that cannot be seen, as with a container."""
    port = urlsplit(url).port
    found = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    pid = next((each.pid for each in found if each.laddr and each.laddr.port == port and each.pid), None)
    return {name: pid} if pid else {}
