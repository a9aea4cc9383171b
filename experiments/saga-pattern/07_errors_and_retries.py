"""What do retries do to a service that is overloaded, sagas to one that does not answer, and poison to all the others?

The same rush of sagas asks the same service by five policies. Then sagas with a deadline and sagas without one wait for
a service that is out of order. Then some that nobody can read come among the others.
"""

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial

import msgspec
from saga import poison
from saga.engines import Ended, Outcome, Site, wait
from saga.engines.own import Own, opened
from saga.fates import KIND, Fate, Fates, mend
from saga.invariant import judge
from saga.messaging import Topics
from saga.orchestrator import operator
from saga.orchestrator.definition import Definition, Retry, read, timed
from saga.orchestrator.machine import Verb
from saga.orchestrator.store import publish
from saga.order import Action, Order, Request, World, orders
from saga.retrying import FOR_EVER, Limits, Rush, policies, port_of, provide, rush
from saga.services.host import host, prepare
from saga.services.shop import Shop, create, drop
from saga.transport import Outlet

from shared import postgres
from shared.errors import StartFailed
from shared.experiment import Experiment, Run
from shared.wait import until

BACKOFF = "I.4/error-handling/retries-with-backoff"
TIMEOUT = "I.4/error-handling/saga-timeout"
DEAD_LETTER = "I.4/error-handling/dead-letter-handling"
experiment = Experiment(
    title="Errors: retry storms, deadlines and poison",
    servers=("postgres", "kafka"),
    topics=(BACKOFF, TIMEOUT, DEAD_LETTER),
)
RIGHT = "backoff and jitter"
BINS = 40  # points of a load curve
DEADLINE = 1.0  # seconds of a saga that has one
CRASHES = 3
CHARGED = "select count(*) from charges"
HELD = "select coalesce(sum(quantity), 0) from reservations where order_id = any(%s) and status = 'reserved'"
PLACED = "select count(*) from orders"


@experiment.run
def main(run: Run) -> None:
    rushes = rush_by_every_policy(run)
    note_rushes(run, rushes)
    claim_rushes(run, rushes)
    count = run.pick(smoke=5, demo=10, full=20)
    made = {name: list(orders(run.seed, count, World(), name)) for name in ("deadline", "endless", "fine", "poison")}
    fixed = {(order.id, Action.SHIP): Fate.BROKEN for name in ("deadline", "endless") for order in made[name]}
    shop = open_shop(run, "engine", Fates(steps={}, undos={}, fixed=fixed))
    with opened(Site(shop, run.name, run.endpoints, run.folder, run.worker), patient("order", 60.0)) as engine:
        with run.step("wait for a service that is out of order, with a deadline and without"):
            out_of_time(run, engine, shop, made["deadline"], made["endless"])
        with run.step("sagas that nobody can read, among others"):
            poisoned(run, engine, made["fine"], made["poison"])
    found = judge(shop).violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")
    with run.step("commands that nobody can read, among others"):
        poisoned_commands(run, count)


def open_shop(run: Run, name: str, fates: Fates = KIND) -> Shop:
    prefix = f"{run.name}_{name}"
    if not run.keep:
        run.cleanup(lambda: drop(run.endpoints["postgres"], prefix))
    return create(run.endpoints["postgres"], prefix, fates)


def rush_by_every_policy(run: Run) -> dict[str, Rush]:
    """The same rush by each policy, on a service of its own. The wrong ones get twice the time that the right one took.

    So it does not matter how fast the machine is. At scale smoke, the wrong ones run at the same time.
    """
    count = run.pick(smoke=30, demo=100, full=120)
    limits = run.pick(Limits(0.01, 0.06, 30.0), Limits(0.005, 0.1, 30.0), Limits(0.005, 0.1, 30.0))
    tried = policies(first=limits.timeout, longest=2.0)
    wrong = [name for name in tried if name != RIGHT]
    run.parameters.update({"sagas": count, "calls per second that the service can do": round(1 / limits.service)})
    shop, rushes = open_shop(run, "rush"), dict[str, Rush]()
    for names in [RIGHT], *run.pick([wrong], [[name] for name in wrong], [[name] for name in wrong]):
        with run.step(f"{count} sagas at once: {', '.join(names)}"):
            made = {name: list(orders(run.seed, count, World(), name)) for name in names}
            ports = {name: run.folder / f"{name}.port" for name in names}
            services = [run.worker(f"service, {name}", provide, shop, limits.service, ports[name]) for name in names]
            rushed = asyncio.run(all_of(rush(port_of(ports[n]), made[n], tried[n], limits) for n in names))
            rushes.update(zip(names, rushed, strict=True))
            until("what was asked first to be done", lambda: ask(shop, "payments", CHARGED) == count * len(rushes))
            for service in services:
                service.stop()
            limits = replace(limits, patience=min(2 * rushes[RIGHT].recovered, limits.patience))
    claim_once(run, shop, rushes)
    return {name: rushes[name] for name in tried}


async def all_of(rushing: Iterable[Coroutine[None, None, Rush]]) -> list[Rush]:
    return await asyncio.gather(*rushing)


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
        cents == shop.world.balance * shop.world.customers and calls > 2 * charged,
        fact=f"{calls:,} calls, {charged:,} charges",
    )


def note_rushes(run: Run, rushes: dict[str, Rush]) -> None:
    span = max(seen.calls[-1].at for name, seen in rushes.items() if name != "no retry")
    for name, seen in rushes.items():
        figure = partial(run.figure, variant=name, wrong_way=name != RIGHT)
        for number, load in enumerate(seen.load(span, BINS)):
            at = round(number * span / BINS, 2)
            figure("load on the service", load, "calls/s", x=at, x_label="seconds of the rush")
        figure("calls for each saga", len(seen.calls) / seen.sagas, "calls")
        figure("sagas served", len(seen.served), "sagas", of=seen.sagas)
        if seen.recovered < math.inf:
            figure("until all are served", seen.recovered, "s")


def claim_rushes(run: Run, rushes: dict[str, Rush]) -> None:
    texts = {
        "no retry": "no retry: most sagas give up over a step that is done a moment later all the same",
        "retry at once": "retry at once: the service does calls that nobody waits for, as long as anybody asks",
        "fixed pause": "a fixed pause keeps up the load that brought the service down",
        "backoff": "backoff alone: whoever failed together comes back together, in waves, and waits longer",
        RIGHT: "backoff and jitter: calls spread, the service recovers, and every saga is served",
    }
    right, storm = rushes[RIGHT], rushes["retry at once"]
    for name, seen in rushes.items():
        wrong, all_served = name != RIGHT, seen.recovered < math.inf
        late, calm = seen.recovered > 1.1 * right.recovered, len(seen.calls) < len(storm.calls) / 3
        run.claim(
            texts[name],
            late if wrong else all_served and calm,
            topics=[BACKOFF],
            fact=f"{len(seen.served)} of {seen.sagas} served by {len(seen.calls):,} calls"
            + (f", the last after {seen.recovered:.1f} s" if all_served else ""),
            variant=name,
            wrong_way=wrong,
        )


def patient(name: str, seconds: float) -> Definition:
    """The order saga, which asks again and again until its time is over."""
    again = Retry(FOR_EVER, first=0.1, longest=0.5)
    return msgspec.structs.replace(timed(read(), attempt=1.0, retry=again, whole=seconds), name=name)


def out_of_time(run: Run, engine: Own, shop: Shop, timed: Sequence[Order], endless: Sequence[Order]) -> None:
    """Shipping is out of order. Half of the sagas have a deadline."""
    connection = engine.client.store.connection
    for definition, made in ((patient("endless", 1e6), endless), (patient("deadline", DEADLINE), timed)):
        publish(connection, definition)
        for order in made:
            replace(engine.client, definition=definition).start(order)
    ended = wait(engine, [order.id for order in timed])
    reasons = {one.id: one.reason for one in operator.sagas(connection, ["compensated"])}
    claim_out_of_time(run, ended, [reasons.get(order.id, "") for order in timed], held(shop, timed))
    open_still = len(endless) - len(engine.ended(order.id for order in endless))
    run.claim(
        "without a deadline, sagas stay open as long as the service is out of order, and hold what they have",
        open_still == len(endless) and held(shop, endless) == sum(order.quantity for order in endless),
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
    """Sagas of a newer program and of a newer definition, and answers that fit nothing, among sagas that are fine."""
    client, connection = engine.client, engine.client.store.connection
    newer = msgspec.structs.replace(client.definition, version=2)
    unreadable, unknown = bad[: len(bad) // 2], bad[len(bad) // 2 :]
    for order in unreadable:
        poison.of_newer_program(client, order)
    for order in unknown:
        replace(client, definition=newer).start(order)
    engine.start(fine[0])
    client.outlet.send(poison.stray_replies(client.topics, fine[0]))
    for order in fine[1:]:
        engine.start(order)
    ended = wait(engine, [order.id for order in (*fine, *bad)])
    listed = {one.id: one.reason for one in operator.sagas(connection, ["parked"])}
    until("stray answers to be put aside", lambda: len(operator.put_aside(connection)) > 2)
    aside = operator.put_aside(connection)
    run.claim(
        "a saga that nobody can read is parked with its reason, an answer that fits nothing is put aside; others go on",
        listed.keys() == {order.id for order in bad}
        and all("cannot be read" in listed[order.id] for order in unreadable)
        and all("no version 2" in listed[order.id] for order in unknown)
        and all(ended[order.id].outcome is Outcome.COMPLETED for order in fine)
        and len(aside) == 3,
        topics=[DEAD_LETTER],
        fact=f"{len(fine)} sagas complete, {len(bad)} parked, {len(aside)} answers put aside: {aside[0].reason}",
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


def poisoned_commands(run: Run, count: int) -> None:
    """The same topic, with one command in the middle that is none, read by two kinds of consumer."""
    topics, broker = Topics(f"{run.name}.poison"), run.endpoints["kafka"]
    topics.create(broker, partitions=1)
    made, place = list(orders(run.seed, count, World(), "commands")), count // 2
    outlet = Outlet(broker)
    outlet.send(poison.commands(topics, Action.PLACE, made, place))
    outlet.flush()
    dies, parks = open_shop(run, "dies"), open_shop(run, "parks")
    prepare(dies)
    prepare(parks)
    crashes = sum(crashed(run, dies, topics) for _ in range(CRASHES))
    run.claim(
        "a consumer that dies of what it cannot read dies of it again: nothing behind it is ever done",
        crashes == CRASHES and ask(dies, "orders", PLACED) == place,
        topics=[DEAD_LETTER],
        fact=f"{crashes} crashes, {ask(dies, 'orders', PLACED)} of {count - 1} orders placed",
        variant="crash and restart",
        wrong_way=True,
    )
    run.worker("parking host", host, parks, topics, broker, ["orders"])
    until("the orders behind it to be placed", lambda: ask(parks, "orders", PLACED) == count - 1)
    with parks.open() as services:
        aside = operator.put_aside(services.connections["orders"])
    run.claim(
        "a consumer that puts it aside, whole and with the reason, does everything else",
        len(aside) == 1 and aside[0].value == poison.GARBAGE,
        topics=[DEAD_LETTER],
        fact=f"{ask(parks, 'orders', PLACED)} of {count - 1} orders placed, put aside: {aside[0].reason}",
        variant="park it",
    )


def crashed(run: Run, shop: Shop, topics: Topics) -> bool:
    try:
        run.worker("careless consumer", poison.careless, shop, topics, run.endpoints["kafka"], "orders").wait(20)
    except StartFailed as error:
        return "not a request" in str(error)
    return False


if __name__ == "__main__":
    experiment.main()
