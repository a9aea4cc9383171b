"""Another program's events among those of a choreography."""

from dataclasses import dataclass, field, replace

from saga.choreography import store
from saga.choreography.service import submitted
from saga.choreography.store import Envelope
from saga.order import Order
from saga.stage.engines.choreography import Choreography


@dataclass
class Events:
    """Says that an order was submitted, in a body of its own."""

    engine: Choreography
    sagas: list[str] = field(default_factory=list)

    def begin(self, saga: str, order: bytes) -> None:
        message = store.outgoing(self.engine.stage.prefix, submitted(Order(saga, "c", "p", 1, 1)))
        self.send(saga, replace(message, value=order))

    def send(self, saga: str, message: Envelope) -> None:
        self.engine.send([message])
        self.sagas.append(saga)

    def reasons(self) -> list[str]:
        held = store.held(self.engine.databases["orders"])
        return [one.reason for one in held if one.waits and one.saga in self.sagas]
