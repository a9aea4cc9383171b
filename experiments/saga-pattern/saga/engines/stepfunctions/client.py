"""Step Functions and SQS through boto3: the state machine and its queues made, sagas begun, looked at, helped on.

order.asl.json is the same on AWS and on moto. An activity (GetActivityTask) would be the shorter way to workers of our
own, and moto has none: so each step sends a message with its task token, and waits until somebody gives the token back
(the developer guide's chapter "Service integration patterns", "Wait for a callback with task token").
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import boto3
import httpx
import msgspec
from botocore.config import Config
from botocore.exceptions import ConnectionError as NotConnected
from botocore.exceptions import HTTPClientError

from saga.order import Action, Order
from saga.reading import reader
from saga.services.shop import SERVICES
from shared import codec
from shared.errors import LabError, NotReadable

ASL = Path(__file__).with_name("order.asl.json")
OPERATOR = "operator"
NAMED = re.compile(r"\$\{(\w+)\}")
Definition = dict[str, Any]  # in the Amazon States Language
Token = Annotated[str, msgspec.Meta(min_length=1)]
Change = Callable[[Definition], Definition]
# What moto 5.2 does otherwise than AWS, and what follows:
# - it forgets the cause of a task's failure: the operator reads an error's name and no words;
# - it sends all attempts at a task with one token, and takes the answer to the one before for that of the next: two
#   failures cost three retries, and the last message is carried out when nobody waits for it any more;
# - it answers SendTaskSuccess with 500 while another execution is just starting.
# Answers of 500 are asked again.
CONFIG = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=2, read_timeout=30)
SILENT = HTTPClientError, NotConnected  # errors of a server that does not answer
ROLE = "arn:aws:iam::123456789012:role/saga"  # on AWS: one that may send to the queues


class UnknownQueue(LabError):
    """order.asl.json names something that nobody has made."""


class Body(msgspec.Struct, frozen=True):
    """What a task sends to a worker."""

    token: Token
    saga: str
    action: Action
    order: Order


class Tokened(msgspec.Struct, frozen=True):
    """What has to be readable of a Body so that its task can be told that the rest is not."""

    token: Token


class Plea(msgspec.Struct, frozen=True):
    """What the state ask-operator sends. A message that nobody could read has no token, and `reason` has it all."""

    saga: str
    reason: Any
    token: str = ""


_read_plea = reader(Plea)


@dataclass(frozen=True)
class Account:
    """Where state machines and queues are: `url` is moto's; empty means AWS, as boto3 finds it in the environment."""

    url: str = ""

    def client(self, service: str) -> Any:
        """A client, which several threads may share. It is slow to make: the first one is kept."""
        return _client(self.url, service)


@dataclass(frozen=True)
class StateMachine:
    """A state machine with its queues. Can be sent to worker processes."""

    account: Account
    arn: str
    queues: dict[str, str]  # service, or OPERATOR -> URL

    def execution(self, saga: str) -> str:
        """The ARN of the saga's execution: the name of an execution is the saga's id."""
        return f"{self.arn.replace(':stateMachine:', ':execution:')}:{saga}"


@dataclass(frozen=True)
class Execution:
    """How an execution stands. `seconds` are from its start to its end, 0 while it runs."""

    status: str
    error: str = ""
    cause: str = ""
    seconds: float = 0.0


@functools.cache
def _client(url: str, service: str) -> Any:
    if not url:
        return boto3.client(service, config=CONFIG)
    # Never the user's own credentials.
    keys = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=url, config=CONFIG, **keys)


def definition(queues: Mapping[str, str]) -> Definition:
    """order.asl.json with these queues. Raises UnknownQueue for one that is named there and missing here."""
    urls = {f"{service.capitalize()}Queue": url for service, url in queues.items()}

    def url(found: re.Match[str]) -> str:
        if found[1] not in urls:
            raise UnknownQueue(f"{ASL.name} wants {found[0]}; there are: {', '.join(urls)}")
        return urls[found[1]]

    filled: Definition = json.loads(NAMED.sub(url, ASL.read_text()))
    return filled


def make_queues(account: Account, name: str, visible_again: int) -> dict[str, str]:
    """A queue per service, and the operator's. `visible_again`: seconds until a dead worker's message comes again."""
    if account.url:  # only then does moto carry out what it is given
        switch = {"stepfunctions": {"execute_state_machine": True}}
        httpx.post(f"{account.url}/moto-api/config", json=switch, timeout=10).raise_for_status()
    sqs, attributes = account.client("sqs"), {"VisibilityTimeout": str(visible_again)}
    names = {service: f"{name}-{service}" for service in (*SERVICES, OPERATOR)}
    return {
        service: sqs.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"]
        for service, queue in names.items()
    }


def deploy(account: Account, name: str, queues: Mapping[str, str], asl: Definition, role: str = ROLE) -> StateMachine:
    """Make the state machine. Raises botocore's ClientError when it is none."""
    made = account.client("stepfunctions").create_state_machine(name=name, definition=json.dumps(asl), roleArn=role)
    return StateMachine(account, made["stateMachineArn"], dict(queues))


class Executions:
    """A machine's executions."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.states = machine.account.client("stepfunctions")
        self.queue = machine.account.client("sqs")

    def start(self, order: Order, timeout: int) -> None:
        """Begin the saga; its name makes it one. `timeout`: seconds of each attempt at a step."""
        given = codec.encode({"order": msgspec.to_builtins(order), "timeout": timeout}).decode()
        with suppress(self.states.exceptions.ExecutionAlreadyExists):  # it ran, and has ended: once is enough
            self.states.start_execution(stateMachineArn=self.machine.arn, name=order.id, input=given)

    def running(self) -> set[str]:
        """The sagas that have not ended."""
        pages = self.states.get_paginator("list_executions")
        found = pages.paginate(stateMachineArn=self.machine.arn, statusFilter="RUNNING")
        return {execution["name"] for page in found for execution in page["executions"]}

    def look(self, saga: str) -> Execution | None:
        """How the saga stands; None when it never began."""
        try:
            found = self.states.describe_execution(executionArn=self.machine.execution(saga))
        except self.states.exceptions.ExecutionDoesNotExist:
            return None
        end = found.get("stopDate")
        seconds = (end - found["startDate"]).total_seconds() if end else 0.0
        return Execution(found["status"], found.get("error", ""), found.get("cause", ""), seconds)

    def pleas(self) -> Iterable[Plea]:
        """Take what has come for the operator since the last time, also what is no plea: it would come for ever."""
        url = self.machine.queues[OPERATOR]
        while messages := self.queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                yield _plea(message["Body"])
                self.queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def go_on(self, plea: Plea) -> None:
        """The operator's decision: the cause is gone, compensate again."""
        self.states.send_task_success(taskToken=plea.token, output="{}")

    def remove(self) -> None:
        """The machine, what runs on it, and its queues, as far as they are still there."""
        self.states.delete_state_machine(stateMachineArn=self.machine.arn)
        for url in self.machine.queues.values():
            with suppress(self.queue.exceptions.QueueDoesNotExist):
                self.queue.delete_queue(QueueUrl=url)


def unreadable(text: str, why: NotReadable) -> Plea:
    """A message that is none, for somebody to look at: whole, with the reason."""
    return Plea("", {"message": text, "unreadable": str(why)})


def _plea(text: str) -> Plea:
    try:
        return _read_plea(text)
    except NotReadable as error:
        return unreadable(text, error)
