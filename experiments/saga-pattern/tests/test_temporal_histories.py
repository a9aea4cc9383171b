"""The workflow's code replayed on the histories of sagas that are under way wherever it is deployed."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from saga.engines.temporal.client import Sagas
from saga.engines.temporal.histories import actions, happened, written
from saga.engines.temporal.workflow import STEPS_BEFORE, OrderSaga
from saga.order import STEPS
from saga.stage.apart import Apart
from saga.stage.temporal import BACKWARD
from saga.wrong.temporal_versions import Before, Unpatched
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from shared.servers.server import Endpoint
from shared.worker import Worker

HISTORIES = Path(__file__).parent / "histories"


@pytest.fixture(scope="module")
def sagas(temporal: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart[Sagas]]:
    """In a process of its own; see saga.stage.apart."""
    folder = tmp_path_factory.mktemp("replays")

    def begin(name: str, function: Callable[..., None], *arguments: object) -> Worker:
        return Worker(name, folder / f"{name}.log", function, *arguments).start()

    with Apart(begin, "client", partial(Sagas.opened, temporal.url, "replays")) as client:
        yield client


@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
def test_the_code_agrees_with_the_history_of_every_saga_under_way(sagas: Apart[Sagas], path: Path) -> None:
    assert sagas.call(Sagas.replay, path.read_text(), OrderSaga) == ""


def test_without_the_patch_the_code_does_not_agree_with_a_saga_that_began_before(sagas: Apart[Sagas]) -> None:
    history = (HISTORIES / "before.json").read_text()
    assert actions(history) == list(STEPS_BEFORE)
    assert "charge-payment" in sagas.call(Sagas.replay, history, Unpatched)
    assert sagas.call(Sagas.replay, history, Before) == ""


def test_an_answer_that_comes_together_with_the_deadline_does_not_keep_its_step_from_being_undone() -> None:
    history = (HISTORIES / "late.json").read_text()
    [deadline] = [number for number, event in enumerate(happened(history)) if event == "TIMER_FIRED"]
    before_the_next_task = happened(history)[deadline : happened(history).index("WORKFLOW_TASK_COMPLETED", deadline)]
    assert "ACTIVITY_TASK_COMPLETED" in before_the_next_task
    assert actions(history) == [*STEPS[:3], *BACKWARD]


def with_memo(keys: Iterable[str]) -> WorkflowHistory:
    """A history of one event, whose map got these keys one after the other."""
    event = HistoryEvent(event_id=1)
    for key in keys:
        event.workflow_execution_started_event_attributes.memo.fields[key].data = b"1"
    return WorkflowHistory("one", [event])


def test_the_same_history_is_the_same_text_in_whatever_order_its_maps_came() -> None:
    keys = [f"key-{number}" for number in range(20)]
    assert written(with_memo(keys)) == written(with_memo(reversed(keys)))
