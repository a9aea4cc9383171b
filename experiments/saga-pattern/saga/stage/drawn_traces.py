"""What experiment 05 looks at when its sagas are over: traces in the services, in Camunda and on moto."""

from collections.abc import Iterable

from saga.engines.camunda.client import Camunda
from saga.engines.stepfunctions.client import Sagas
from saga.order import Action, Order
from saga.services.invariant import Standing
from saga.services.shop import Shop
from shared import postgres
from shared.wait import until

CHARGED = """
select coalesce((select number from attempts where request_id = %s), 0), charged from charges where order_id = %s
"""


def attempts(shop: Shop, order: Order) -> tuple[int, int]:
    """How often camunda.drawn was asked for the payment (others do not count), and how often the customer has paid."""
    with postgres.connect(shop.conninfos["payments"]) as connection:
        found = connection.execute(CHARGED, [f"{order.id}:{Action.CHARGE}:slow", order.id]).fetchone()
    return found or (0, 0)


def reserved(shop: Shop, wanted: Iterable[Order]) -> int:
    """How many of these orders have their stock."""
    query, names = "select count(*) from reservations where order_id = any(%s)", [order.id for order in wanted]
    with postgres.connect(shop.conninfos["stock"]) as connection:
        (count,) = connection.execute(query, [names]).fetchone() or (0,)
    return int(count)


def said(standing: Standing, order: Order) -> list[str]:
    """What is wrong with this order."""
    return [violation for violation in standing.violations if violation.startswith(f"{order.id}:")]


def overlap(camunda: Camunda, order: Order, first: Action, second: Action) -> bool:
    """Whether Camunda had the second begun before the first was done."""
    [instance] = camunda.instances([order.id])
    by_id = {activity.id: activity for activity in camunda.activities(instance)}
    ended, began = by_id[first].ended, by_id[second].began
    return ended is None or began is None or began < ended


def end_of(sagas: Sagas, saga: str) -> tuple[str, int]:
    """Wait for the end of an execution, whichever; returns its status, and how many attempts were out of time."""

    def status() -> str:
        found = sagas.look(saga)
        return found.status if found and found.status != "RUNNING" else ""

    ended, arn = until(f"saga {saga} to end", status, 60), sagas.machine.execution(saga)
    events = sagas.states.get_execution_history(executionArn=arn, maxResults=1000)["events"]
    return ended, sum(event["type"] == "TaskTimedOut" for event in events)
