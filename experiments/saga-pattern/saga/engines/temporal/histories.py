"""What a workflow's history (JSON, as Temporal's CLI and web UI give it) says, and whether code agrees with it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from saga.engines.temporal.messages import CONVERTER
from saga.order import Action

NAME = "OrderSaga"


@dataclass(frozen=True)
class Asked:
    """One activity, over all its attempts."""

    action: Action
    attempts: int
    timed_out: str  # the timeout that ended the attempt before the last, such as HEARTBEAT; empty if none did


def written(history: WorkflowHistory) -> str:
    """The history as JSON: the same one as the same text. Protobuf gives the entries of a map in any order."""
    return json.dumps(history.to_json_dict(), indent=2, sort_keys=True)


def asked(history: str) -> list[Asked]:
    """The activities that have come to an end, in the order in which they were asked for.

    A history has no event for an attempt that failed. The start of the last attempt is in it, with its number and with
    the failure of the one before.
    """
    return list(_asked(_events(history)))


def given_up(history: str) -> dict[Action, str]:
    """The activities whose last attempt was ended by a timeout, and by which, such as START_TO_CLOSE."""
    events = _events(history)
    scheduled = _scheduled(events)
    timed_out = (event for event in events if event.HasField("activity_task_timed_out_event_attributes"))
    ends = (event.activity_task_timed_out_event_attributes for event in timed_out)
    return {scheduled[end.scheduled_event_id]: _timeout(end.failure) for end in ends}


def actions(history: str) -> list[Action]:
    """The actions that were asked for and came to an end, in their order."""
    return [found.action for found in asked(history)]


def happened(history: str) -> list[str]:
    """The kinds of all its events, such as TIMER_FIRED."""
    return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in _events(history)]


def refusals(history: str) -> list[str]:
    """Why workers could not go on with the workflow: what its failed workflow tasks say."""
    failed = (event for event in _events(history) if event.HasField("workflow_task_failed_event_attributes"))
    return [" because ".join(_messages(event.workflow_task_failed_event_attributes.failure)) for event in failed]


async def replay(history: str, workflow: type) -> str:
    """Run the code on a history, without a server; returns where it does not agree, or nothing."""
    replayer = Replayer(workflows=[workflow], data_converter=CONVERTER, build_id="order-saga")
    try:
        await replayer.replay_workflow(WorkflowHistory.from_json(NAME, history))
    except NondeterminismError as error:
        return str(error)
    return ""


def _messages(failure: Failure) -> Iterator[str]:
    """The failure's message and those of its causes."""
    yield failure.message
    if failure.HasField("cause"):
        yield from _messages(failure.cause)


def _events(history: str) -> list[HistoryEvent]:
    return list(WorkflowHistory.from_json(NAME, history).events)


def _asked(events: list[HistoryEvent]) -> Iterator[Asked]:
    scheduled = _scheduled(events)
    for event in events:
        if event.HasField("activity_task_started_event_attributes"):
            begun = event.activity_task_started_event_attributes
            yield Asked(scheduled[begun.scheduled_event_id], begun.attempt, _timeout(begun.last_failure))


def _scheduled(events: list[HistoryEvent]) -> dict[int, Action]:
    """What each activity was asked for, by the number of the event that did."""
    asked_for = (event for event in events if event.HasField("activity_task_scheduled_event_attributes"))
    return {event.event_id: Action(event.activity_task_scheduled_event_attributes.activity_id) for event in asked_for}


def _timeout(failure: Failure) -> str:
    if not failure.HasField("timeout_failure_info"):
        return ""
    return TimeoutType.Name(failure.timeout_failure_info.timeout_type).removeprefix("TIMEOUT_TYPE_")
