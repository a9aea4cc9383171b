"""Changes to the choreography, as teams make them, and the same change where one definition has the flow."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from saga.choreography.machine import MACHINES, PAYMENTS, SHIPPING, STOCK, Machine, Machines, Reaction
from saga.orchestrator.definition import ORDER_FILE, Definition, Retry, load, timed
from saga.orchestrator.store import publish
from saga.order import SERVICE, Action, Order, Outcome
from saga.services.host import prepare
from saga.services.invariant import Standing, judge
from saga.services.shop import SERVICES, Shop, add
from saga.stage.engines import Site, wait
from saga.stage.engines.own import HOSTS, Own, opened
from saga.stage.fates import Fate, Fates, open_shop
from saga.stage.plays import WORLD
from saga.stage.processes import host
from shared import postgres
from shared.experiment import Run
from shared.postgres import Connection
from shared.worker import Worker

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


# The fraud check where one definition has the flow.
#
# The orchestrator and the hosts of the four services are started once. First come sagas of the definition as it was;
# then the new service is started and the new version published; then come sagas of that. Nobody tells the four.


NEW = SERVICE[Action.CHECK]
# A machine that stands still for a while has nothing undone: only a refusal does.
AGAIN = Retry(attempts=60, longest=1.0)
ASKED = """
select distinct split_part(request_id, ':', 2) from inbox where split_part(request_id, ':', 1) = any(%s)
"""


def check(_: Connection, order: Order) -> str:
    """The effect of the new command, as one of `saga.services`: the reason of a refusal, or nothing."""
    return suspect(order)


@dataclass(frozen=True)
class Checked:
    """What is different with the check, and how the sagas of either version ended."""

    change: Change
    without: dict[str, Outcome]
    checked: dict[str, Outcome]

    @property
    def undone(self) -> tuple[set[str], set[str]]:
        """The orders that were compensated, without the check and with it."""
        both = self.without, self.checked
        without, checked = ({saga for saga, end in ends.items() if end is Outcome.COMPENSATED} for ends in both)
        return without, checked


def earlier(orders: Sequence[Order]) -> tuple[list[Order], Fates]:
    """The same orders before there is a check, and fates by which shipping refuses the last: each undo is asked for."""
    made = [msgspec.structs.replace(order, id=f"before-{order.id}") for order in orders]
    return made, Fates(steps={}, undos={}, fixed={(made[-1].id, Action.SHIP): Fate.REFUSED})


def play(site: Site, before: Sequence[Order], after: Sequence[Order]) -> Checked:
    """Carry out some orders without the check, and some with it, by the same processes. Raises DeadlineExceeded."""
    raw = tomllib.loads(ORDER_FILE.read_text())
    without, checked = (timed(load(each), attempt=2.0, retry=AGAIN, whole=600.0) for each in (raw, with_check(raw)))
    with opened(site, without) as engine:
        ended = carried_out(engine, without, before)
        was = places(engine, without, site.shop, before)
        with new_service(site, engine) as (shop, worker):
            publish(engine.client.store.connection, checked)
            ended_checked = carried_out(engine, checked, after)
            now = places(engine, checked, shop, after, {NEW: worker})
    return Checked(change(was, now), ended, ended_checked)


@contextmanager
def new_service(site: Site, engine: Own) -> Iterator[tuple[Shop, Worker]]:
    """The fraud service in a process and a schema of its own, and the shop with it."""
    office, database = engine.office, site.endpoints["postgres"]
    conninfo = add(database, site.name, NEW, site.shop.world)
    shop = replace(site.shop, conninfos={NEW: conninfo}, effects={Action.CHECK: check})
    try:
        prepare(shop)
        with site.worker(f"host-{NEW}", host, shop, office.topics, office.broker, [NEW]) as worker:
            yield replace(shop, conninfos=site.shop.conninfos | shop.conninfos), worker
    finally:
        if not site.keep:
            postgres.drop_schema(database, f"{site.name}_{NEW}")


def carried_out(engine: Own, definition: Definition, orders: Iterable[Order]) -> dict[str, Outcome]:
    """Carry out orders by this version of the definition; saga -> how it ended."""
    client, begun = replace(engine.client, definition=definition), list(orders)
    for order in begun:
        client.start(order)
    found = wait(engine, [order.id for order in begun], seconds=240)
    return {saga: ended.outcome for saga, ended in found.items()}


def places(
    engine: Own, definition: Definition, shop: Shop, orders: Iterable[Order], new: dict[str, Worker] | None = None
) -> dict[str, object]:
    """What there is that could be changed, as it is found: the definition, its commands, and the services.

    Of a service: the process that it is, and the commands that it was asked for these sagas, by its inbox.
    """
    kept = engine.client.store.definition(definition.name, definition.version)
    commands = {name: SERVICE[name] for step in kept.steps for name in (step.action, step.undo) if name}
    sagas = [order.id for order in orders]
    hosts = {name: worker for names, worker in zip(HOSTS, engine.hosts, strict=True) for name in names} | (new or {})
    found: dict[str, object] = {"definition": kept, "list of commands": commands}
    for service, conninfo in shop.conninfos.items():
        with postgres.connect(conninfo) as connection:
            asked = {name for (name,) in connection.execute(ASKED, [sagas])}
        found[service] = hosts[service].process.pid if hosts[service].alive() else None, asked
    return found


def play_defined(run: Run, todo: Sequence[Order]) -> tuple[Standing, Checked]:
    """By our orchestrator: the same orders before there is a check, and with it."""
    before, fates = earlier(todo)
    shop = open_shop(run, "defined", fates, WORLD)
    site = Site(shop, f"{run.name}_defined", run.endpoints, run.folder, run.worker, keep=run.keep)
    played = play(site, before, todo)
    return judge(shop), played


def note_changes(run: Run, changes: Mapping[str, Change]) -> None:
    """Figures of what a fraud check comes to, by who has the flow."""
    for variant, change in changes.items():
        run.figure("existing services that a fraud check changes", len(change.services), "services", variant=variant)
        run.figure("other existing places that it changes", len(change.others), "places", variant=variant)
