"""Camunda 7 through its REST API: what those who start sagas, and the workers who carry out their steps, need of it.

The calls are those of the manual's chapters "REST API" and "External Tasks". All that a run makes belongs to one
tenant: several share a server, and one request removes it all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from saga.engines.camunda import BPMN
from saga.order import Action, Order
from shared import codec
from shared.errors import LabError

PROCESS = "order"
PATIENCE = 30.0  # seconds for an answer
SENT = "%Y-%m-%dT%H:%M:%S.000%z"
MOMENT = "%Y-%m-%dT%H:%M:%S.%f%z"


class CamundaError(LabError):
    """Camunda did not do what it was asked. The text has its own words."""


class Refused(CamundaError):
    """It never will: a bad request, or what it is about is not there (any more)."""


class Unavailable(CamundaError):
    """It does not answer, or cannot now. Whether the request was carried out is not known."""


@dataclass(frozen=True)
class Task:
    """An external task, locked for us. `retries` is None at the first attempt; `order` is JSON, as it should be."""

    id: str
    saga: str
    action: str
    order: object
    retries: int | None


@dataclass(frozen=True)
class Instance:
    """A process instance, as the history has it. `state` is Camunda's; `seconds` are from its start to its end."""

    id: str
    saga: str
    state: str
    began: datetime
    seconds: float


@dataclass(frozen=True)
class Activity:
    """An element of the diagram that was carried out; `ended` is None while it is."""

    id: str
    began: datetime | None
    ended: datetime | None


class Camunda:
    """One tenant's view of a server. Close it, or use `with`. Not for several threads."""

    def __init__(self, url: str, tenant: str) -> None:
        self.tenant = tenant
        self._http = httpx.Client(base_url=url, timeout=PATIENCE)

    def __enter__(self) -> "Camunda":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Any call of the REST API; the words are httpx's. Raises Refused or Unavailable, as everything here does."""
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Unavailable(f"Camunda does not answer: {error!r}") from error
        if response.is_success:
            return _answer(response)
        kind = Unavailable if response.is_server_error else Refused
        raise kind(f"Camunda says {response.status_code} to {method} {path}: {_message(response)}")

    # Diagrams and sagas.

    def deploy(self, bpmn: bytes | None = None) -> None:
        """Make the diagram (order.bpmn, unless another is given) known, as the newest version of its process."""
        fields = {"deployment-name": PROCESS, "tenant-id": self.tenant, "deploy-changed-only": "true"}
        file = {"data": ("order.bpmn", bpmn or BPMN.read_bytes())}
        self.ask("POST", "/deployment/create", data=fields, files=file)

    def remove(self) -> None:
        """Everything of this tenant: diagrams, sagas that run, and their history."""
        for deployment in self.ask("GET", "/deployment", params={"tenantIdIn": self.tenant}):
            self.ask("DELETE", f"/deployment/{deployment['id']}", params={"cascade": "true"})

    def start(self, order: Order, timeout: float) -> None:
        """Begin a saga, which gives up after `timeout` seconds. Two of the same business key are two sagas."""
        values = {"order": _encode(order), "timeout": f"PT{timeout:.3f}S"}
        body = {"businessKey": order.id, "variables": {name: {"value": value} for name, value in values.items()}}
        self.ask("POST", f"/process-definition/key/{PROCESS}/tenant-id/{self.tenant}/start", json=body)

    def instances(self, sagas: Iterable[str], **criteria: object) -> list[Instance]:
        """The instances of these sagas that meet the criteria (of the history query), whether they run or ended."""
        body = {"processInstanceBusinessKeyIn": list(sagas), **criteria}
        return self._instances(body) if body["processInstanceBusinessKeyIn"] else []

    def outcomes(self, instances: Iterable[Instance]) -> dict[str, str]:
        """Instance -> how its saga ended, as its diagram noted it."""
        body = {"processInstanceIdIn": [instance.id for instance in instances], "variableName": "outcome"}
        found = self.ask("POST", "/history/variable-instance", json=body) if body["processInstanceIdIn"] else []
        return {variable["processInstanceId"]: variable["value"] for variable in found}

    def activities(self, instance: Instance) -> list[Activity]:
        """What was carried out in an instance, and when, in the order in which it began."""
        query = {"processInstanceId": instance.id, "sortBy": "startTime", "sortOrder": "asc"}
        found = self.ask("GET", "/history/activity-instance", params=query)
        return [Activity(one["activityId"], _moment(one["startTime"]), _moment(one["endTime"])) for one in found]

    def incidents(self) -> dict[str, str]:
        """Instance -> why it waits for an operator."""
        found = self.ask("GET", "/incident", params={"tenantIdIn": self.tenant})
        return {incident["processInstanceId"]: incident["incidentMessage"] or "" for incident in found}

    def retry(self, saga: str, attempts: int = 3) -> None:
        """The operator's decision: ask for the tasks of this saga again. Raises Refused when no such saga runs."""
        running = [instance.id for instance in self.instances([saga], unfinished=True)]
        if not running:
            raise Refused(f"no saga {saga!r} runs")
        self.ask("PUT", "/external-task/retries", json={"retries": attempts, "processInstanceIds": running})

    def hurry(self, saga: str) -> None:
        """Have the time of this saga be up now. Raises Refused when no timer of it runs."""
        for instance in self.instances([saga], unfinished=True):
            for job in self.ask("GET", "/job", params={"processInstanceId": instance.id, "timers": "true"}):
                self.ask("PUT", f"/job/{job['id']}/duedate", json={"duedate": instance.began.strftime(SENT)})
                return
        raise Refused(f"no timer of saga {saga!r} runs")

    # What workers do.

    def fetch(self, worker: str, tasks: int, lock: float, wait: float) -> list[Task]:
        """Lock up to so many tasks for `lock` seconds; with none there, wait so many seconds for one."""
        topic = {"lockDuration": _ms(lock), "tenantIdIn": [self.tenant], "variables": ["order"]}
        topics = [{"topicName": action, **topic} for action in Action]
        body = {"workerId": worker, "maxTasks": tasks, "asyncResponseTimeout": _ms(wait), "topics": topics}
        return [_task(found) for found in self.ask("POST", "/external-task/fetchAndLock", json=body)]

    def complete(self, worker: str, task: Task) -> None:
        self._tell("complete", worker, task)

    def give_up(self, worker: str, task: Task, code: str, reason: str) -> None:
        """A BPMN error: the diagram says what comes of it."""
        self._tell("bpmnError", worker, task, errorCode=code, errorMessage=reason)

    def fail(self, worker: str, task: Task, reason: str, retries: int, pause: float = 0.0) -> None:
        """Not done: have it asked for again after `pause` seconds. With no retries left, an operator must see to it."""
        self._tell("failure", worker, task, errorMessage=reason, retries=retries, retryTimeout=_ms(pause))

    def _tell(self, verb: str, worker: str, task: Task, **more: object) -> None:
        self.ask("POST", f"/external-task/{task.id}/{verb}", json={"workerId": worker, **more})

    def _instances(self, body: Mapping[str, object]) -> list[Instance]:
        body = {"processDefinitionKey": PROCESS, "tenantIdIn": [self.tenant], **body}
        return [_instance(found) for found in self.ask("POST", "/history/process-instance", json=body)]


def _encode(order: Order) -> str:
    return codec.encode(order).decode()


def _answer(response: httpx.Response) -> Any:
    """Raises Unavailable for what is no JSON: it is somebody else who answers, for a Camunda that is away, say.

    Nothing stricter: it has the variables of several sagas, each of which may be odd in its own way.
    """
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise Unavailable(f"Camunda's answer is no JSON: {error}") from error


def _task(found: Mapping[str, Any]) -> Task:
    order = found["variables"].get("order", {}).get("value")
    return Task(found["id"], found["businessKey"] or "", found["topicName"], order, found["retries"])


def _instance(found: Mapping[str, Any]) -> Instance:
    began = datetime.strptime(found["startTime"], MOMENT)
    return Instance(found["id"], found["businessKey"], found["state"], began, (found["durationInMillis"] or 0) / 1000)


def _moment(text: str | None) -> datetime | None:
    return datetime.strptime(text, MOMENT) if text else None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json().get("message"))
    except ValueError:
        return response.text[:300]
