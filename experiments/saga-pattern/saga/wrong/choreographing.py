"""Services as they are often written: correlated by customer, without an inbox, without an outbox."""

from dataclasses import replace
from typing import Any

from saga.choreography import store
from saga.choreography.service import Service, Tell, submitted
from saga.choreography.store import Envelope
from saga.order import DOES, Action, Order, Request
from saga.services.effects import EFFECTS
from saga.wrong.keyless import charge_again
from shared import codec
from shared.event import Event, new_id


class ByCustomer(Service):
    """Correlated by a business key that is not unique: a failure event names only the customer.

    Who hears it takes "the customer's order" for the last one that it has seen.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.last: dict[str, Order] = {}  # by customer

    def about(self, event: Event) -> tuple[str, Order]:
        if "id" in event.data:
            order = codec.convert(event.data, Order)
            self.last[order.customer] = order
        else:
            order = self.last[event.data["customer"]]
        return order.id, order

    def event(self, kind: str, heard: Event, saga: str, order: Order, reason: str) -> Event:
        said = super().event(kind, heard, saga, order, reason)
        failure = reason or any(one.says == kind and one.action in DOES for one in self.machine.reactions)
        data = {"customer": order.customer, "reason": reason} if failure else said.data
        return replace(said, data=data, correlation_id=order.customer, partition_key=order.customer)


def submitted_by_customer(order: Order) -> Event:
    """The event that begins a saga, for `ByCustomer`: a customer may have several orders."""
    return replace(submitted(order), correlation_id=order.customer, partition_key=order.customer)


class WithoutInbox(Service):
    """Every event that comes is acted upon, also when it comes again. So must be what it does: charges have no key."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.services = replace(self.services, effects={**EFFECTS, Action.CHARGE: charge_again})

    def handle(self, event: Event) -> None:
        saga, order = self.about(event)
        [reaction] = [one for one in self.machine.reactions if one.hears == event.type]
        self.react(reaction, event, saga, order)

    def perform(self, request: Request, tell: Tell) -> None:
        with self.connection.transaction():
            tell(self.services.effect(request.action)(self.connection, request.order))

    def say(self, saga: str, heard: Event, said: Event) -> None:
        store.say(self.connection, saga, replace(heard, id=new_id()), said, store.outgoing(self.prefix, said))


class WithoutOutbox(Service):
    """Events are kept in memory, and sent when the transaction is committed."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.unsent: list[Envelope] = []

    def say(self, saga: str, heard: Event, said: Event) -> None:
        store.move(self.connection, saga, heard, said)
        self.unsent.append(store.outgoing(self.prefix, said))

    def publish(self) -> None:
        if self.unsent:
            self.send(self.unsent)
            self.unsent.clear()
