"""One service of the choreography: hears events, reacts as its machine says, and says what came of it.

What is heard together is one transaction: effects, states, the events to be said (the outbox), and how far the topics
are read. The events are sent after the commit, and whatever a dead process left unsent is sent by the next one. The
same event may therefore come twice, under its one id; it is handled once.

One process per service: a second one would wait for the locks of the first.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from saga.choreography import store
from saga.choreography.machine import SUBMITTED, Machine, Reaction
from saga.choreography.store import Envelope, Letter
from saga.order import AnswerLost, Order, Request, TransientError
from saga.reading import storable
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Services
from saga.transport import Place, advance
from saga.windows import Hook, ServiceWindow, nowhere
from shared import codec
from shared.errors import EventError, LabError, NotReadable
from shared.event import Event

Send = Callable[[Sequence[Envelope]], None]  # returns when the broker has them
Tell = Callable[[str], None]  # says what came of it: the reason of a refusal, or nothing


def unseen(heard: Event, said: Event) -> None:
    """Nobody needs to hear of it."""


class Unusable(LabError):
    """An event that cannot be handled, ever: it is kept for an operator, with this reason."""


class Service:
    """A machine at work on a database. Not for several threads.

    Of each (event heard, event said because of it), `saying` hears within the transaction, and `done` when it is
    committed.
    """

    def __init__(
        self,
        machine: Machine,
        services: Services,
        send: Send,
        prefix: str,
        at: Hook = nowhere,
        saying: Callable[[Event, Event], None] = unseen,
        done: Callable[[Event, Event], None] = unseen,
    ) -> None:
        self.machine = machine
        self.services = services
        self.connection = services.connections[machine.service]
        self.send = send
        self.prefix = prefix  # of the topics
        self.at = at
        self.saying = saying
        self.done = done
        self._told: list[tuple[Event, Event]] = []  # (heard, said) in the open transaction

    def turn(self, letters: Sequence[Letter], reached: Mapping[Place, int] | None = None) -> None:
        """Handle these letters and those that are due, and send what there is to be sent."""
        todo = [*store.due(self.connection), *letters]
        if todo:
            self.at(ServiceWindow.READ)
            with self.connection.transaction():
                for letter in todo:
                    self.take(letter)
                advance(self.connection, reached or {})
                if self._told:
                    self.at(ServiceWindow.DONE)
            if self._told:
                self.at(ServiceWindow.COMMITTED)
            self._tell_done()
        self.publish()

    def take(self, letter: Letter) -> None:
        """Handle one letter, or keep it: to be tried again, or for an operator."""
        try:
            event = Event.from_kafka(letter.key, letter.value, letter.headers)
            if event.type in self.machine.hears:
                self.handle(event)
        except TransientError as error:
            store.hold(self.connection, letter, str(error), again=True)
        except (EventError, Unusable, *IMPOSSIBLE) as error:
            store.hold(self.connection, letter, f"{type(error).__name__}: {error}", again=False)
        else:
            if letter.held:
                store.release(self.connection, letter)

    def handle(self, event: Event) -> None:
        """React to an event, once. Raises TransientError, or Unusable where it is not expected."""
        saga, order = self.about(event)
        state, known = store.look(self.connection, saga, event.id)
        if known:
            return
        reaction = self.machine.reaction(state, event.type)
        if reaction is None:
            raise Unusable(f"{self.machine.service} does not expect {event.type} after {state or 'nothing'} ({saga})")
        self.react(reaction, event, saga, order)

    def react(self, reaction: Reaction, heard: Event, saga: str, order: Order) -> None:
        """Do what the reaction says, and say what came of it, in one (nested) transaction."""

        def tell(refused: str) -> None:
            said = self.event(reaction.refused if refused else reaction.says, heard, saga, order, refused)
            self.saying(heard, said)
            self.say(saga, heard, said)
            self._told.append((heard, said))

        if reaction.action:
            with suppress(AnswerLost):  # it is done, and its answer is the event in the outbox
                self.perform(Request(saga, reaction.action, order), tell)
        else:
            with self.connection.transaction():
                tell(reaction.check(order) if reaction.check else "")

    def about(self, event: Event) -> tuple[str, Order]:
        """The saga that an event belongs to, and its order. Raises Unusable."""
        try:
            order = codec.convert(event.data, Order)
            storable(event.correlation_id, event.id, order.id, order.customer, order.product)
        except NotReadable as error:
            raise Unusable(f"{event.type} tells no order: {error}") from error
        if not event.correlation_id:
            raise Unusable(f"{event.type} names no saga")
        return event.correlation_id, order

    def event(self, kind: str, heard: Event, saga: str, order: Order, reason: str) -> Event:
        """What is said because of what was heard. It carries all that others need to know of the order."""
        data = {**msgspec.to_builtins(order), **({"reason": reason} if reason else {})}
        return Event(
            type=kind,
            source=f"/shop/{self.machine.service}",
            subject=order.id,
            data=data,
            correlation_id=saga,
            causation_id=heard.id,
            partition_key=saga,
        )

    def say(self, saga: str, heard: Event, said: Event) -> None:
        """Within the transaction: into the outbox."""
        store.say(self.connection, saga, heard, said, store.outgoing(self.prefix, said))

    def perform(self, request: Request, tell: Tell) -> None:
        """Have the effect once, with what is told because of it. Raises TransientError."""
        self.services(request, lambda _connection, _request, reply: tell(reply.refused), self.at)

    def publish(self) -> None:
        """Send what is in the outbox, also what a process left there that died."""
        while messages := store.unsent(self.connection):
            self.send(messages)
            self.at(ServiceWindow.SENT)
            store.mark_sent(self.connection, messages)
            self.at(ServiceWindow.MARKED)

    def _tell_done(self) -> None:
        for heard, said in self._told:
            self.done(heard, said)
        self._told.clear()


def submitted(order: Order) -> Event:
    """The event that begins the saga of an order. Its id is the order's own: a second click changes nothing."""
    ident = f"{order.id}/{SUBMITTED}"
    data = msgspec.to_builtins(order)
    return Event(SUBMITTED, "/shop/checkout", order.id, data, ident, correlation_id=order.id, partition_key=order.id)
