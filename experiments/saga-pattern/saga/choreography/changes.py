"""Changes to the choreography, as teams make them: a new service, the same with one change forgotten, a cycle."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace

from saga.choreography.machine import MACHINES, PAYMENTS, SHIPPING, STOCK, Machine, Machines, Reaction
from saga.orchestrator.definition import ORDER_FILE
from saga.order import Action, Order

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


def differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The names of what is new, gone or different."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def orchestrated() -> tuple[dict[str, object], dict[str, object]]:
    """The same change where one definition has the flow: that definition before and after it."""
    before = tomllib.loads(ORDER_FILE.read_text())
    steps = [dict(step) for step in before["steps"]]
    steps[-1]["after"] = ["check-fraud"]
    steps.insert(-1, {"action": "check-fraud", "compensable": False, "after": ["charge-payment"]})
    return {ORDER_FILE.name: before}, {ORDER_FILE.name: {**before, "version": before["version"] + 1, "steps": steps}}


def by_service(machines: Machines) -> dict[str, Machine]:
    return {machine.service: machine for machine in machines}
