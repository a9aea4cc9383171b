"""The process that hosts services: commands in, each carried out once, answers out.

What is read together is one transaction, within which every command has its own: one write to disk for all. The
answers are sent after the commit. The place up to which commands are answered is written with the transaction after
that: a host that dies reads the rest again, and the inbox gives the same answers. So the inbox is the outbox, too.

Each service has one host at a time. A second one does no harm, it waits for the locks of the first.
"""

import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Message

from saga.messaging import Header, Outgoing, Unreadable, answer, header, request_of
from saga.order import SERVICE, AnswerLost, Reply, Request, TransientError
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Services, Shop
from saga.transport import TABLES, Inlet, Outlet, Place, advance, park, reached
from saga.windows import Hook, HostWindow, nowhere
from shared.postgres import Connection

WAIT = 0.1  # seconds until the host looks whether it is to stop
MOST = 100  # commands of one transaction: answers wait for its end


def unseen(requests: Sequence[Request]) -> None:
    """What is done needs to be told to nobody but who asked for it."""


class Host:
    """Some services, in one process. `done` is told what a transaction has done when it is committed."""

    def __init__(
        self,
        services: Services,
        inlet: Inlet,
        outlet: Outlet,
        at: Hook = nowhere,
        done: Callable[[Sequence[Request]], None] = unseen,
        most: int = MOST,
    ) -> None:
        self.services = services
        self.inlet = inlet
        self.outlet = outlet
        self.at = at
        self.done = done
        self.most = most
        self._answered: dict[str, dict[Place, int]] = {}  # topic -> places up to which answers are sent
        self._effects: list[Request] = []  # of the open transaction

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Raises what a database or the broker raise: whoever started it starts it again."""
        while not stop.is_set():
            self.step()
        self.outlet.flush()
        for topic, places in self._answered.items():  # so that the next one has nothing to read again
            advance(self._service(topic), places)

    def step(self, seconds: float = WAIT) -> None:
        """Wait so long for commands, and carry out those that are there."""
        if messages := self.inlet.read(seconds):
            self.at(HostWindow.READ)
            for topic in dict.fromkeys(message.topic() or "" for message in messages):
                commands = [message for message in messages if message.topic() == topic]
                for first in range(0, len(commands), self.most):
                    self.serve(topic, commands[first : first + self.most])
        self.outlet.check()

    def serve(self, topic: str, messages: Sequence[Message]) -> None:
        """Carry out commands to one service, and answer them."""
        connection = self._service(topic)
        with connection.transaction():
            answers = [found for message in messages if (found := self._answer(connection, message))]
            self.outlet.flush()  # by now they are with the broker, mostly: the answers to what was read before
            advance(connection, self._answered.get(topic, {}))
            self.outlet.promise(answers)
            self.at(HostWindow.DONE)
        self.done(self._effects)
        self._effects.clear()
        self.at(HostWindow.COMMITTED)
        self.outlet.send(answers)
        self._answered[topic] = reached(messages)
        self.at(HostWindow.SENT)

    def _service(self, topic: str) -> Connection:
        return self.services.connections[service_of(topic)]

    def _answer(self, connection: Connection, message: Message) -> Outgoing | None:
        """Nothing where the answer is lost on its way, or where nobody could use one."""
        try:
            request = self._request(message)
            self.outlet.require(header(message, Header.REPLY_TO))
        except Unreadable as error:
            park(connection, message, str(error))
            return None
        try:
            return answer(message, self.services(request, self._has_effect))
        except AnswerLost:
            return None
        except TransientError as error:
            return answer(message, Reply(request.saga, request.action), busy=str(error))
        except IMPOSSIBLE as error:  # its own transaction is rolled back
            park(connection, message, f"{type(error).__name__}: {error}")
            return None

    @staticmethod
    def _request(message: Message) -> Request:
        """Raises Unreadable: also for a command that came to the wrong service, which has no tables for it."""
        request, here = request_of(message), service_of(message.topic() or "")
        if (does := SERVICE[request.action]) != here:
            raise Unreadable(f"{request.action} is done by {does}, and was asked of {here}")
        return request

    def _has_effect(self, connection: Connection, request: Request, reply: Reply) -> None:
        if not reply.refused:
            self._effects.append(request)


def service_of(topic: str) -> str:
    """Whose commands a topic has: see `Topics.commands`."""
    return topic.rpartition(".")[2]


def prepare(shop: Shop) -> None:
    """What a host needs in each service's database."""
    with shop.open() as services:
        for connection in services.connections.values():
            connection.execute(TABLES)
