"""A fraud check comes in: what it changes among services that hear each other, and beside an orchestrator."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from saga.orchestrator.definition import ORDER_FILE, DefinitionError, load
from saga.order import STEPS, Action, Outcome, World
from saga.services.invariant import judge
from saga.stage import changes, plays
from saga.stage.changes import Change, change, suspect, told, with_check
from saga.stage.engines import Site
from saga.stage.fates import FatedShop

from shared.servers.server import Endpoint
from shared.worker import Worker


def test_told_by_events_two_services_change() -> None:
    assert told() == Change(services=("payments", "shipping"), others=(), new=("fraud",))


def test_a_place_that_is_gone_counts_as_changed() -> None:
    assert change({"stock": 1, "a": 2}, {"a": 2, "b": 1}) == Change(("stock",), (), ("b",))


def test_a_step_that_is_not_in_the_list_of_commands_is_refused() -> None:
    definition = with_check(tomllib.loads(ORDER_FILE.read_text()))
    assert [step.action for step in load(definition).steps] == [*STEPS[:3], Action.CHECK, STEPS[3]]
    unknown = [{**step, "action": step["action"].replace("fraud", "weather")} for step in definition["steps"]]
    with pytest.raises(DefinitionError, match="Invalid enum value 'check-weather'"):
        load({**definition, "steps": unknown})


def test_a_step_in_the_definition_is_carried_out_and_none_of_the_four_services_changes(
    shop: FatedShop, unique: str, postgres: Endpoint, kafka: Endpoint, starter: Callable[..., Worker], tmp_path: Path
) -> None:
    todo = plays.suspects(5, World())
    before, fates = changes.earlier(todo)
    shop = replace(shop, fates=fates)
    site = Site(shop, unique, {"postgres": postgres, "kafka": kafka}, tmp_path, starter)
    played = changes.play(site, before, todo)
    assert played.change == Change(services=(), others=("definition", "list of commands"), new=("fraud",))
    compensated = {order.id for order in todo if suspect(order)}
    assert {saga for saga, outcome in played.checked.items() if outcome is Outcome.COMPENSATED} == compensated
    assert [saga for saga, outcome in played.without.items() if outcome is Outcome.COMPENSATED] == [before[-1].id]
    assert judge(shop).violations == []
