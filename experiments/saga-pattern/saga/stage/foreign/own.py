"""Another program's sagas on our orchestrator: rows whose payload is not what this program would write."""

import time
from dataclasses import dataclass

from saga.orchestrator import machine, operator
from saga.orchestrator.machine import Status
from saga.orchestrator.store import Saga
from saga.stage.engines.own import Own


@dataclass
class Rows:
    """A client of another version. Its sagas come to a worker when they are due: their first command is not sent."""

    engine: Own

    def begin(self, saga: str, order: bytes) -> None:
        definition = self.engine.client.definition
        turn = machine.begin(definition, saga, time.time())
        self.engine.client.store.add(Saga(turn.state, definition.name, definition.version, order), turn.note)

    def reasons(self) -> list[str]:
        listed = operator.sagas(self.engine.client.store.connection, [Status.PARKED])
        return [one.reason for one in listed if one.id.startswith("odd-")]
