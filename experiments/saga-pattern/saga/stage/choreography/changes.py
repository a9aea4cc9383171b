"""Changes to the choreography, as teams make them: a new service, the same with one change forgotten, a cycle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saga.choreography.machine import MACHINES, PAYMENTS, SHIPPING, STOCK, Machine, Machines, Reaction
from saga.order import Action, Order
from saga.services.shop import SERVICES

SUSPECT = 20_000  # cents of an order that nobody ships unasked


def suspect(order: Order) -> str:
    """The fraud service's own decision: the reason to stop the order, or nothing."""
    return f"{order.cents} cents are suspicious" if order.cents > SUSPECT else ""


FRAUD = Machine("fraud", (Reaction("payments.charged", "fraud.cleared", None, "fraud.suspected", check=suspect),))
SHIPPING_WAITS = Machine("shipping", (replace(SHIPPING.reactions[0], hears="fraud.cleared"),))
PAYMENTS_REFUND = Machine(
    "payments",
    (
        *PAYMENTS.reactions,
        Reaction("fraud.suspected", "payments.refunded", Action.REFUND, after=("payments.charged",)),
    ),
)
# Stock keeps the pieces and asks once more; payments answers whoever asks once more. Each is sensible by itself.
STOCK_INSISTS = Machine(
    "stock",
    (
        *(one for one in STOCK.reactions if one.hears != "payments.refused"),
        Reaction("payments.refused", "stock.held", after=("stock.reserved", "stock.held")),
    ),
)
PAYMENTS_ANSWERS = Machine(
    "payments",
    (*PAYMENTS.reactions, Reaction("stock.held", "payments.refused", after=("payments.refused",))),
)


def changed(machines: Machines, *changes: Machine) -> Machines:
    """The choreography with these machines in place of those of the same services, or beside them."""
    by_service = {machine.service: machine for machine in (*machines, *changes)}
    return tuple(by_service.values())


WITH_FRAUD = changed(MACHINES, FRAUD, SHIPPING_WAITS, PAYMENTS_REFUND)
FORGOTTEN = changed(MACHINES, FRAUD, SHIPPING_WAITS)  # payments was not told
LOOPING = changed(MACHINES, STOCK_INSISTS, PAYMENTS_ANSWERS)


def choreographed(machines: Machines) -> dict[str, object]:
    """Place -> what it knows of the flow. It is in the services, and nowhere else."""
    return {machine.service: machine for machine in machines}


def with_check(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A new version of a definition, with the check before its last step."""
    *before, last = definition["steps"]
    check = {"action": Action.CHECK.value, "compensable": False, "after": [before[-1]["action"]]}
    steps = [*before, check, {**last, "after": [Action.CHECK.value]}]
    return {**definition, "version": definition["version"] + 1, "steps": steps}


@dataclass(frozen=True)
class Change:
    """The places that are not as before: services that were there, other places that were there, and new ones."""

    services: tuple[str, ...]
    others: tuple[str, ...]
    new: tuple[str, ...]


def change(before: Mapping[str, object], after: Mapping[str, object]) -> Change:
    """What is different after a change. A place that is gone counts as changed."""
    changed = sorted(place for place in before if before[place] != after.get(place))
    services = tuple(place for place in changed if place in SERVICES)
    others = tuple(place for place in changed if place not in SERVICES)
    return Change(services, others, tuple(sorted(after.keys() - before.keys())))


def told() -> Change:
    """What the fraud check comes to among services that hear each other. Where one definition has it: `defined`."""
    return change(choreographed(MACHINES), choreographed(WITH_FRAUD))
