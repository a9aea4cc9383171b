"""What do retries do to a service that is overloaded, sagas to one that does not answer, and poison to all the others?

The same rush of sagas asks the same service by five policies. Then sagas with a deadline and sagas without one wait for
a service that is out of order. Then some that nobody can read come among the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import msgspec
from saga.messaging import Topics
from saga.orchestrator import operator
from saga.orchestrator.definition import Definition, Retry, read, timed
from saga.orchestrator.machine import Verb
from saga.orchestrator.store import publish
from saga.order import Action, Order, Outcome, Request, World, orders
from saga.services.host import prepare
from saga.services.invariant import judge
from saga.services.shop import Shop
from saga.stage import poison
from saga.stage.engines import Ended, Site, wait
from saga.stage.engines.own import Own, opened
from saga.stage.fates import Fate, Fates, mend, open_shop
from saga.stage.processes import host
from saga.stage.retrying import (
    BACKOFF,
    FOR_EVER,
    RIGHT,
    Limits,
    Rush,
    claim_counts,
    claim_rushes,
    note_rushes,
    policies,
    port_of,
    provide,
    rush,
    together,
)
from saga.transport import Outlet
from saga.wrong import consuming

from shared import postgres
from shared.errors import StartFailed
from shared.experiment import Experiment, Run, Scale
from shared.wait import until

TIMEOUT = "I.4/error-handling/saga-timeout"
DEAD_LETTER = "I.4/error-handling/dead-letter-handling"
experiment = Experiment(
    title="Errors: retry storms, deadlines and poison",
    servers=("postgres", "kafka"),
    topics=(BACKOFF, TIMEOUT, DEAD_LETTER),
)
LONGEST = 30.0  # seconds of the right one's patience
DEADLINE = 1.0  # seconds of a saga that has one
KINDS = "deadline", "endless", "fine", "poison", "garbled"  # of sagas
CRASHES = 3
DEADLY = {
    "crash and restart": "a consumer that dies of what it cannot read dies of it again: nothing behind it is ever done",
    "its parser's own error": "a consumer that puts aside what its parser calls an error dies of what its parser dies"
    " of: a byte that is no UTF-8, JSON that is deep",
}
CHARGED = "select count(*) from charges"
DONE_FOR = "select count(*) from charges where order_id = any(%s)"
HELD = "select coalesce(sum(quantity), 0) from reservations where order_id = any(%s) and status = 'reserved'"
PLACED = "select count(*) from orders"


@experiment.run
def main(run: Run) -> None:
    note_rushes(run, rush_by_every_policy(run))
    count = run.pick(smoke=5, demo=10, full=20)
    made = {
        name: list(orders(run.seed, count, World(), name))
        for name in ("deadline", "endless", "fine", "poison", "garbled")
    }
    fixed = {(order.id, Action.SHIP): Fate.BROKEN for name in ("deadline", "endless") for order in made[name]}
    shop = open_shop(run, "engine", Fates(steps={}, undos={}, fixed=fixed))
    with opened(Site(shop, run.name, run.endpoints, run.folder, run.worker), patient("order", 60.0)) as engine:
        with run.step("wait for a service that is out of order, with a deadline and without"):
            out_of_time(run, engine, shop, made["deadline"], made["endless"])
        with run.step("sagas that nobody can read, among others"):
            poisoned(run, engine, made["fine"], made["poison"])
        with run.step("answers that nobody can read"):
            garbled(run, engine, made["garbled"])
    found = judge(shop).violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")
    with run.step("commands that nobody can read, among others"):
        poisoned_commands(run, count)


def rush_by_every_policy(run: Run) -> dict[str, Rush]:
    """The same rush by each policy, on a service of its own. The wrong ones get twice the time that the right one took.

    So it does not matter how fast the machine is. At scale smoke, the wrong ones run at the same time.
    """
    count = run.pick(smoke=24, demo=100, full=120)
    limits = Limits(*run.pick((0.01, 0.06), (0.005, 0.1), (0.005, 0.1)), patience=LONGEST)
    tried = policies(first=limits.timeout, longest=2.0)
    wrong = [name for name in tried if name != RIGHT]
    run.parameters.update({"sagas": count, "calls per second that the service can do": round(1 / limits.service)})
    shop, rushes = open_shop(run, "rush"), dict[str, Rush]()
    for names in [RIGHT], *run.pick([wrong], [[name] for name in wrong], [[name] for name in wrong]):
        with run.step(f"{count} sagas at once: {', '.join(names)}"):
            made = {name: list(orders(run.seed, count, World(), name)) for name in names}
            ports = {name: run.folder / f"{name}.port" for name in names}
            services = [run.worker(f"service, {name}", provide, shop, limits.service, ports[name]) for name in names]
            rushed = asyncio.run(together(rush(port_of(ports[n]), made[n], tried[n], limits) for n in names))
            rushes.update(zip(names, rushed, strict=True))
            until("what was asked first to be done", lambda: ask(shop, "payments", CHARGED) == count * len(rushes))
            for service in services:
                service.stop()
            limits = replace(limits, patience=2 * min(rushes[RIGHT].recovered, LONGEST))
    claim_once(run, shop, rushes)
    done = ask(shop, "payments", DONE_FOR, rushes["no retry"].given_up)
    charged = ask(shop, "payments", CHARGED)
    (claim_counts if run.scale is Scale.SMOKE else claim_rushes)(run, rushes, done, charged)
    return {name: rushes[name] for name in tried}


def ask(shop: Shop, service: str, query: str, *values: object) -> int:
    """The one number that the query finds in the service's database."""
    with postgres.connect(shop.conninfos[service]) as connection:
        row = connection.execute(query, values).fetchone()
    return int(row[0]) if row else 0


def claim_once(run: Run, shop: Shop, rushes: dict[str, Rush]) -> None:
    charged, calls = ask(shop, "payments", CHARGED), sum(len(seen.calls) for seen in rushes.values())
    cents = ask(shop, "payments", "select sum(cents)::bigint from accounts")
    cents += ask(shop, "payments", "select sum(cents)::bigint from charges")
    run.claim(
        "however often a saga asks, it is charged once",
        cents == shop.world.balance * shop.world.customers and calls > run.pick(1, 2, 2) * charged,
        fact=f"{calls:,} calls, {charged:,} charges",
    )


def patient(name: str, seconds: float) -> Definition:
    """The order saga, which asks again and again until its time is over."""
    again = Retry(FOR_EVER, first=0.1, longest=0.5)
    return msgspec.structs.replace(timed(read(), attempt=1.0, retry=again, whole=seconds), name=name)


def out_of_time(run: Run, engine: Own, shop: Shop, timed: Sequence[Order], endless: Sequence[Order]) -> None:
    """Shipping is out of order. Half of the sagas have a deadline."""
    connection = engine.client.store.connection
    ahead = next(orders(run.seed, 1, World(), "ahead"))  # by its end, workers and hosts are up
    engine.start(ahead)
    wait(engine, [ahead.id])
    for definition, made in ((patient("endless", 1e6), endless), (patient("deadline", DEADLINE), timed)):
        publish(connection, definition)
        for order in made:
            replace(engine.client, definition=definition).start(order)
    ended = wait(engine, [order.id for order in timed])
    reasons = {one.id: one.reason for one in operator.sagas(connection, ["compensated"])}
    claim_out_of_time(run, ended, [reasons.get(order.id, "") for order in timed], held(shop, timed))
    pieces = sum(order.quantity for order in endless)
    until("the others to have their pieces", lambda: held(shop, endless) == pieces)
    open_still = len(endless) - len(engine.ended(order.id for order in endless))
    run.claim(
        "without a deadline, sagas stay open as long as the service is out of order, and hold what they have",
        open_still == len(endless) and held(shop, endless) == pieces,
        topics=[TIMEOUT],
        fact=f"{open_still} of {len(endless)} sagas open, {held(shop, endless)} pieces held",
        variant="no deadline",
        wrong_way=True,
    )
    with shop.open() as services:
        for order in endless:
            mend(services.connections["shipping"], Request(order.id, Action.SHIP, order).id)
    wait(engine, [order.id for order in endless])


def claim_out_of_time(run: Run, ended: dict[str, Ended], reasons: list[str], pieces: int) -> None:
    variant, seconds = f"deadline of {DEADLINE:g} s", [end.seconds for end in ended.values()]
    run.figure("from the start of a saga to its compensation", seconds, "s", variant=variant)
    run.claim(
        "a saga whose time is over is compensated, and says why",
        {end.outcome for end in ended.values()} == {Outcome.COMPENSATED}
        and all("out of time" in reason for reason in reasons)
        and pieces == 0
        and min(seconds) >= DEADLINE,
        topics=[TIMEOUT],
        fact=f"{len(ended)} sagas compensated after {max(seconds):.1f} s at most: {reasons[0]}; {pieces} pieces held",
        variant=variant,
    )


def held(shop: Shop, made: Sequence[Order]) -> int:
    """Pieces that are reserved for these orders."""
    return ask(shop, "stock", HELD, [order.id for order in made])


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
