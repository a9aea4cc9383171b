"""A worker on the services' queues: it takes a task's message, has the service carry it out, gives the token back.

A message is deleted when its token is given back, not before: if the worker dies in between, SQS shows it to another
one after its visibility timeout. A task that has timed out meanwhile was sent again, with another token; AWS
refuses the old one, and the service's inbox makes both one effect.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from botocore.exceptions import ClientError

from saga.engines.side_by_side import side_by_side
from saga.engines.stepfunctions.client import OPERATOR, SILENT, Body, StateMachine, Tokened, unreadable
from saga.order import SERVICE, Request, TransientError
from saga.reading import reader
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import SERVICES, Services, Shop
from saga.windows import Hook, nowhere
from shared import codec
from shared.errors import NotReadable

_body, _tokened = reader(Body), reader(Tokened)
WAIT, BATCH = 2, 2  # seconds of a long poll, messages of one answer
AWAY = 0.2  # seconds before a server that does not answer, or refuses, is asked again
LATE = {"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"}  # the state machine has gone on without us


def work(shop: Shop, machine: StateMachine, at: Hook = nowhere) -> None:
    """Work until killed, in a thread per service."""
    desks = {service: _Desk(machine, service, at) for service in SERVICES}
    side_by_side([_Consumer(shop, service, desk) for service, desk in desks.items()])


@dataclass(frozen=True)
class _Consumer:
    """What one thread does: one service's queue."""

    shop: Shop
    service: str
    desk: "_Desk"

    def __call__(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with replace(self.shop, conninfos={self.service: self.shop.conninfos[self.service]}).open() as services:
                    while not stop.is_set():
                        self.desk.work(services)
            except (*SILENT, ClientError, psycopg.OperationalError) as error:  # what was not told comes again
                print(f"{self.service}: {error}")
                stop.wait(AWAY)


class _Desk:
    """A queue, and the state machine that put the messages there."""

    def __init__(self, machine: StateMachine, service: str, at: Hook) -> None:
        self.machine = machine
        self.service = service
        self.url = machine.queues[service]
        self.at = at
        self.queue = machine.account.client("sqs")
        self.states = machine.account.client("stepfunctions")

    def work(self, services: Services) -> None:
        """The next few messages."""
        found = self.queue.receive_message(QueueUrl=self.url, WaitTimeSeconds=WAIT, MaxNumberOfMessages=BATCH)
        for message in found.get("Messages", []):
            self._carry_out(services, message["Body"])
            self.queue.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def _carry_out(self, services: Services, text: str) -> None:
        try:
            body = self._read(text)
            request = Request(body.saga, body.action, body.order)
        except NotReadable as error:
            return self._hand_on(text, error)
        try:
            reply = services(request, at=self.at)
        except TransientError as error:
            return self._tell(body, "failure", error="Transient", cause=str(error))
        except IMPOSSIBLE as error:  # rolled back, and as it would be every time: not asked for again, but undone
            return self._tell(body, "failure", error="Impossible", cause=f"{type(error).__name__}: {error}")
        if reply.refused:
            return self._tell(body, "failure", error="Refused", cause=reply.refused)
        return self._tell(body, "success", output="{}")

    def _read(self, text: str) -> Body:
        """Raises NotReadable: also for a task of another service, whose tables are elsewhere."""
        body = _body(text)
        if SERVICE[body.action] != self.service:
            raise NotReadable(f"{body.action} is done by {SERVICE[body.action]}, and was asked of {self.service}")
        return body

    def _tell(self, body: Body | Tokened, outcome: str, **words: str) -> None:
        send: Any = getattr(self.states, f"send_task_{outcome}")
        try:
            send(taskToken=body.token, **words)
        except ClientError as error:
            if error.response["Error"]["Code"] not in LATE:
                raise
            print(f"the end of a task cannot be told: {error}: {body}")

    def _hand_on(self, text: str, why: NotReadable) -> None:
        """Nobody will ever carry it out. Its task hears that; where no token can be read, somebody has to look."""
        try:
            self._tell(_tokened(text), "failure", error="Unreadable", cause=str(why))
        except NotReadable:
            plea = codec.encode(unreadable(text, why)).decode()
            self.queue.send_message(QueueUrl=self.machine.queues[OPERATOR], MessageBody=plea)
