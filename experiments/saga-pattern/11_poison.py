"""What nobody can read: does one bad message, saga or answer stop all that come behind it?

Sagas of another program among others, answers in Latin-1, commands that are none. Consumers that die of what they
cannot read (saga/wrong/consuming.py: careless, half) beside the host that puts it aside (saga/services/host.py:
Host._answer).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import msgspec
from saga.messaging import Topics
from saga.orchestrator import operator
from saga.orchestrator.definition import Retry, read, timed
from saga.orchestrator.machine import Verb
from saga.orchestrator.store import publish
from saga.order import Action, Order, Outcome, World, orders
from saga.services.host import prepare
from saga.services.invariant import judge
from saga.services.shop import Shop
from saga.stage import poison
from saga.stage.engines import Site, wait
from saga.stage.engines.own import Own, opened
from saga.stage.fates import open_shop
from saga.stage.processes import host
from saga.stage.retrying import ask, patient
from saga.transport import Outlet
from saga.wrong import consuming

from shared.errors import StartFailed
from shared.experiment import Experiment, Run
from shared.wait import until

DEAD_LETTER = "I.4/error-handling/dead-letter-handling"
experiment = Experiment(title="Poison: what nobody can read", servers=("postgres", "kafka"), topics=(DEAD_LETTER,))
CRASHES = 3
DEADLY = {
    "crash and restart": "a consumer that dies of what it cannot read dies of it again: nothing behind it is ever done",
    "its parser's own error": "a consumer that puts aside what its parser calls an error dies of what its parser dies"
    " of: a byte that is no UTF-8, JSON that is deep",
}
PLACED = "select count(*) from orders"


@experiment.run
def main(run: Run) -> None:
    count = run.pick(smoke=5, demo=10, full=20)
    made = {name: list(orders(run.seed, count, World(), name)) for name in ("fine", "poison", "garbled")}
    shop = open_shop(run, "engine")
    with opened(Site(shop, run.name, run.endpoints, run.folder, run.worker), patient("order", 60.0)) as engine:
        with run.step("sagas that nobody can read, among others"):
            poisoned(run, engine, made["fine"], made["poison"])
        with run.step("answers that nobody can read"):
            garbled(run, engine, made["garbled"])
    found = judge(shop).violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")
    with run.step("commands that nobody can read, among others"):
        poisoned_commands(run, count)


def poisoned(run: Run, engine: Own, fine: Sequence[Order], bad: Sequence[Order]) -> None:
    """Sagas of other programs and of a newer definition, and answers that fit nothing, among sagas that are fine."""
    client, connection = engine.client, engine.client.store.connection
    newer = msgspec.structs.replace(client.definition, version=2)
    payloads, unknown = poison.payloads(bad[0]).values(), bad[len(bad) // 2 :]
    unreadable = [msgspec.structs.replace(bad[0], id=f"unreadable-{number}") for number in range(len(payloads))]
    engine.start(fine[0])
    for order, payload in zip(unreadable, payloads, strict=True):
        poison.of_another_program(client, order, payload)
    for order in unknown:
        replace(client, definition=newer).start(order)
    client.outlet.send(poison.stray_replies(client.topics, fine[0]))
    for order in fine[1:]:
        engine.start(order)
    ended = wait(engine, [order.id for order in (*fine, *unreadable, *unknown)])
    listed = {one.id: one.reason for one in operator.sagas(connection, ["parked"])}
    until("stray answers to be put aside", lambda: len(operator.put_aside(connection)) > 2)
    aside = operator.put_aside(connection)
    run.claim(
        "a saga that nobody can read is parked with its reason, an answer that fits nothing is put aside; others go on"
        " (Logprep#640: JSON too deep for the parser; eliza#18079: half a character)",
        listed.keys() == {order.id for order in (*unreadable, *unknown)}
        and all("cannot be read" in listed[order.id] for order in unreadable)
        and all("no version 2" in listed[order.id] for order in unknown)
        and all(ended[order.id].outcome is Outcome.COMPLETED for order in fine)
        and len(aside) == 3,
        topics=[DEAD_LETTER],
        fact=f"{len(fine)} sagas complete, {len(listed)} parked, {len(aside)} answers put aside: {aside[0].reason}",
        variant="park it",
    )
    publish(connection, newer)
    for order in unknown:
        operator.tell(connection, order.id, Verb.RETRY)
    again = wait(engine, [order.id for order in unknown])
    run.claim(
        "nothing of a parked saga is lost: when the new definition is there, it goes on from where it was",
        {end.outcome for end in again.values()} == {Outcome.COMPLETED},
        topics=[DEAD_LETTER],
        fact=f"{len(again)} sagas retried and complete",
        variant="park it",
    )


def garbled(run: Run, engine: Own, made: Sequence[Order]) -> None:
    """A service answers in Latin-1, while these sagas wait for it."""
    slow = msgspec.structs.replace(timed(read(), attempt=600.0, retry=Retry(), whole=600.0), name="garbled")
    connection, client = engine.client.store.connection, replace(engine.client, definition=slow)
    publish(connection, slow)
    for order in made:
        poison.of_another_program(client, order)
    client.outlet.send([poison.garbled(client.topics, order) for order in made])
    parked = wait(engine, [order.id for order in made])
    reasons = {one.id: one.reason for one in operator.sagas(connection, ["parked"]) if one.id in parked}
    for order in made:
        operator.tell(connection, order.id, Verb.RETRY)
    again = wait(engine, [order.id for order in made])
    run.claim(
        "an answer that nobody can read: its saga waits for the operator with the reason, and goes on when it is told",
        {end.outcome for end in parked.values()} == {Outcome.PARKED}
        and all(reason.startswith("nobody can read the answer") for reason in reasons.values())
        and {end.outcome for end in again.values()} == {Outcome.COMPLETED},
        topics=[DEAD_LETTER],
        fact=f"{len(parked)} sagas parked, {len(again)} retried and complete: {reasons[made[0].id]}",
        variant="park it",
    )


def poisoned_commands(run: Run, count: int) -> None:
    """The same topic, with commands in the middle that are none, read by three kinds of consumer."""
    topics, broker = Topics(f"{run.name}.poison"), run.endpoints["kafka"]
    topics.create(broker, partitions=1)
    made, place = list(orders(run.seed, count, World(), "commands")), count // 2
    with closing(Outlet(broker)) as outlet:
        outlet.send(poison.commands(topics, Action.PLACE, made, place))
        outlet.flush()
    ways = {
        "crash and restart": (consuming.careless, "not a request"),
        "its parser's own error": (consuming.half, "Decode"),
    }
    for way, (consumer, dies_of) in ways.items():
        shop = opened_shop(run, f"dies{len(way)}")
        crashes = sum(crashed(run, shop, topics, consumer, dies_of) for _ in range(CRASHES))
        run.claim(
            DEADLY[way],
            crashes == CRASHES and ask(shop, "orders", PLACED) == place,
            topics=[DEAD_LETTER],
            fact=f"{crashes} crashes, {ask(shop, 'orders', PLACED)} of {count - 1} orders placed",
            variant=way,
            wrong_way=True,
            source="fkie-cad/Logprep#640" if consumer is consuming.half else "",
        )
    parks = opened_shop(run, "parks")
    run.worker("parking host", host, parks, topics, broker, ["orders"])
    until("the orders behind them to be placed", lambda: ask(parks, "orders", PLACED) == count - 1, 120)
    with parks.open() as services:
        aside = operator.put_aside(services.connections["orders"])
    run.claim(
        "a consumer that puts them aside, whole and with the reason, does everything else",
        [one.value for one in aside] == poison.values(Action.PLACE, made[place]) and all(one.reason for one in aside),
        topics=[DEAD_LETTER],
        fact=f"{ask(parks, 'orders', PLACED)} of {count - 1} orders placed, {len(aside)} put aside: {aside[0].reason}",
        variant="park it",
    )


def opened_shop(run: Run, name: str) -> Shop:
    """A shop, with what a host needs in it."""
    prepare(shop := open_shop(run, name))
    return shop


def crashed(run: Run, shop: Shop, topics: Topics, consumer: Callable[..., None], dies_of: str) -> bool:
    try:
        run.worker(consumer.__name__, consumer, shop, topics, run.endpoints["kafka"], "orders").wait(120)
    except StartFailed as error:
        return dies_of in str(error)
    return False


if __name__ == "__main__":
    experiment.main()
