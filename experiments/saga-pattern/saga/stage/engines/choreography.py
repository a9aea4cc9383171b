"""The choreography behind the port of the engines: what begins a saga, and how one sees that it ended.

Nobody has the state of a saga. That it ended is what the orders service said last about it; that it waits for an
operator can be in any service's list.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from saga.choreography import store, wire
from saga.choreography.machine import ENDS
from saga.choreography.service import Send, submitted
from saga.order import Order, Outcome
from saga.stage.choreography import Cast, Stage, prepare
from saga.stage.engines import Ended, Site
from shared import kafka, postgres
from shared.postgres import Connection
from shared.worker import Worker

STATES = """
select saga, said, extract(epoch from at)::float8 from saga_states where saga = any(%s) and said = any(%s)
"""
HELD = "select distinct saga from held where due is null and saga = any(%s)"


@dataclass
class Choreography:
    """The engine that is up."""

    stage: Stage
    cast: Cast
    send: Send
    databases: dict[str, Connection]
    name: str = "choreography"
    began: dict[str, float] = field(default_factory=dict)  # seconds of the wall clock, which the database has, too

    @property
    def workers(self) -> list[Worker]:
        return list(self.cast.workers.values())

    @property
    def pids(self) -> dict[str, int]:
        return {worker.name: worker.process.pid or 0 for worker in self.workers}

    def start(self, order: Order) -> None:
        self.began.setdefault(order.id, time.time())
        self.send([store.outgoing(self.stage.prefix, submitted(order))])

    def ended(self, sagas: Iterable[str]) -> dict[str, Ended]:
        """Those in the operator's list of any service are parked."""
        asked = list(sagas)
        rows = self.databases["orders"].execute(STATES, [asked, list(ENDS)]).fetchall()
        found = {saga: Ended(_outcome(said), at - self.began.get(saga, at)) for saga, said, at in rows}
        for connection in self.databases.values():
            for (saga,) in connection.execute(HELD, [asked]):
                found.setdefault(saga, Ended(Outcome.PARKED, time.time() - self.began.get(saga, time.time())))
        return found


@contextmanager
def opened(site: Site) -> Iterator[Choreography]:
    """Bring it up: one process per service. A kill is of the first."""
    stage = Stage(site.shop, site.endpoints["kafka"], f"{site.name}.choreography", site.folder / "choreography.jsonl")
    with ExitStack() as things:
        things.callback(kafka.delete_topics, stage.broker, stage.prefix)
        prepare(stage)
        cast = Cast(stage, site.worker)
        things.callback(cast.stop)
        for number, machine in enumerate(stage.machines):
            cast.launch(machine.service, [site.kill] if site.kill and number == 0 else [])
        databases = {
            name: things.enter_context(postgres.connect(conninfo)) for name, conninfo in site.shop.conninfos.items()
        }
        send = things.enter_context(wire.sending(stage.broker))
        yield Choreography(stage, cast, send, databases)


def _outcome(said: str) -> Outcome:
    return Outcome.COMPLETED if said == "orders.completed" else Outcome.COMPENSATED
