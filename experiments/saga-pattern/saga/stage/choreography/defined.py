"""The fraud check where one definition has the flow: carried out by our orchestrator, beside services that run on.

The orchestrator and the hosts of the four services are started once. First come sagas of the definition as it was; then
the new service is started and the new version published; then come sagas of that. Nobody tells the four anything.
"""

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec

from saga.orchestrator.definition import ORDER_FILE, Definition, Retry, load, timed
from saga.orchestrator.store import publish
from saga.order import SERVICE, Action, Order, Outcome
from saga.services.host import prepare
from saga.services.shop import Shop, add
from saga.stage.choreography.changes import Change, change, suspect, with_check
from saga.stage.engines import Site, wait
from saga.stage.engines.own import HOSTS, Own, opened
from saga.stage.fates import Fate, Fates
from saga.stage.processes import host
from shared import postgres
from shared.postgres import Connection
from shared.worker import Worker

FRAUD = SERVICE[Action.CHECK]
# A machine that stands still for a while has nothing undone: only a refusal does.
AGAIN = Retry(attempts=60, longest=1.0)
ASKED = """
select distinct split_part(request_id, ':', 2) from inbox where split_part(request_id, ':', 1) = any(%s)
"""


def check(_: Connection, order: Order) -> str:
    """The effect of the new command, as one of `saga.services`: the reason of a refusal, or nothing."""
    return suspect(order)


@dataclass(frozen=True)
class Played:
    """What is different with the check, and how the sagas of either version ended."""

    change: Change
    without: dict[str, Outcome]
    checked: dict[str, Outcome]


def earlier(orders: Sequence[Order]) -> tuple[list[Order], Fates]:
    """The same orders before there is a check, and fates by which shipping refuses the last: each undo is asked for."""
    made = [msgspec.structs.replace(order, id=f"before-{order.id}") for order in orders]
    return made, Fates(steps={}, undos={}, fixed={(made[-1].id, Action.SHIP): Fate.REFUSED})


def play(site: Site, before: Sequence[Order], after: Sequence[Order]) -> Played:
    """Carry out some orders without the check, and some with it, by the same processes. Raises DeadlineExceeded."""
    raw = tomllib.loads(ORDER_FILE.read_text())
    without, checked = (timed(load(each), attempt=2.0, retry=AGAIN, whole=600.0) for each in (raw, with_check(raw)))
    with opened(site, without) as engine:
        ended = carried_out(engine, without, before)
        was = places(engine, without, site.shop, before)
        with new_service(site, engine) as (shop, worker):
            publish(engine.client.store.connection, checked)
            ended_checked = carried_out(engine, checked, after)
            now = places(engine, checked, shop, after, {FRAUD: worker})
    return Played(change(was, now), ended, ended_checked)


@contextmanager
def new_service(site: Site, engine: Own) -> Iterator[tuple[Shop, Worker]]:
    """The fraud service in a process and a schema of its own, and the shop with it."""
    office, database = engine.office, site.endpoints["postgres"]
    conninfo = add(database, site.name, FRAUD, site.shop.world)
    shop = replace(site.shop, conninfos={FRAUD: conninfo}, effects={Action.CHECK: check})
    try:
        prepare(shop)
        with site.worker(f"host-{FRAUD}", host, shop, office.topics, office.broker, [FRAUD]) as worker:
            yield replace(shop, conninfos=site.shop.conninfos | shop.conninfos), worker
    finally:
        if not site.keep:
            postgres.drop_schema(database, f"{site.name}_{FRAUD}")


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
