"""What another program wrote wrongly stops nobody else, in whatever engine: it waits, with its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saga.order import World, orders
from saga.services.invariant import Ending, judge
from saga.stage.engines import Opener, Site, camunda, choreography, dbos, own, stepfunctions, temporal, wait
from saga.stage.fates import FatedShop
from saga.stage.foreign import Foreign, between
from saga.stage.foreign.camunda import Instances
from saga.stage.foreign.choreography import Events
from saga.stage.foreign.dbos import Enqueued
from saga.stage.foreign.own import Rows
from saga.stage.foreign.stepfunctions import Messages
from saga.stage.foreign.temporal import Workflows

from shared.servers.server import Endpoint
from shared.worker import Worker

ENGINES: dict[str, tuple[Opener, Callable[[Any], Foreign], tuple[str, ...]]] = {
    "own": (own.opened, Rows, ("postgres", "kafka")),
    "choreography": (choreography.opened, Events, ("kafka",)),
    "DBOS": (dbos.opened, Enqueued, ("postgres",)),
    "Temporal": (temporal.opened, Workflows, ("temporal",)),
    "Camunda": (camunda.opened, Instances, ("camunda",)),
    "Step Functions": (stepfunctions.opened, Messages, ("moto",)),
}


@pytest.mark.parametrize("name", ENGINES)
def test_orders_that_nobody_can_read_wait_with_their_reasons_and_all_others_are_carried_out(
    name: str,
    shop: FatedShop,
    unique: str,
    server: Callable[[str], Endpoint],
    starter: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    opened, foreign, servers = ENGINES[name]
    *good, late = orders(29, 4, World())
    with opened(Site(shop, unique, {one: server(one) for one in servers}, tmp_path, starter)) as engine:
        played = between(engine, foreign(engine), good)
        assert played.hold, played
        for worker in engine.workers:
            assert worker.alive()
            worker.kill()
            worker.start()  # over all of them
        engine.start(late)
        wait(engine, [late.id])
    assert judge(shop).endings == {order.id: Ending.COMPLETE for order in (*good, late)}
