"""What do retries do to a service that is overloaded, and sagas to one that does not answer?

The same rush of sagas asks the same service by five policies, which are data (saga/stage/retrying.py, policies). Then
sagas with a deadline and sagas without one wait for a service that is out of order.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from saga.orchestrator import operator
from saga.orchestrator.store import publish
from saga.order import Action, Order, Outcome, Request, World, orders
from saga.services.invariant import judge
from saga.services.shop import Shop
from saga.stage import retrying
from saga.stage.engines import Ended, Site, wait
from saga.stage.engines.own import Own, opened
from saga.stage.fates import Fate, Fates, mend, open_shop
from saga.stage.retrying import RIGHT, Rush

from shared.experiment import Experiment, Run, Scale
from shared.wait import until

TIMEOUT = "I.4/error-handling/saga-timeout"
BACKOFF = "I.4/error-handling/retries-with-backoff"
experiment = Experiment(
    title="Errors: retry storms and deadlines",
    servers=("postgres", "kafka"),
    topics=(BACKOFF, TIMEOUT),
)
LONGEST = 30.0  # seconds of the right one's patience
CHARGED = "select count(*) from charges"
DONE_FOR = "select count(*) from charges where order_id = any(%s)"
DEADLINE = 1.0  # seconds of a saga that has one
HELD = "select coalesce(sum(quantity), 0) from reservations where order_id = any(%s) and status = 'reserved'"


@experiment.run
def main(run: Run) -> None:
    retrying.note_rushes(run, rush_by_every_policy(run))
    count = run.pick(smoke=5, demo=10, full=20)
    made = {name: list(orders(run.seed, count, World(), name)) for name in ("deadline", "endless")}
    fixed = {(order.id, Action.SHIP): Fate.BROKEN for name in made for order in made[name]}
    shop = open_shop(run, "engine", Fates(steps={}, undos={}, fixed=fixed))
    site = Site(shop, run.name, run.endpoints, run.folder, run.worker)
    step = "wait for a service that is out of order, with a deadline and without"
    with opened(site, retrying.patient("order", 60.0)) as engine, run.step(step):
        out_of_time(run, engine, shop, made["deadline"], made["endless"])
    found = judge(shop).violations
    run.claim("in the end every order is whole or undone", not found, fact=f"{len(found)} violations")


def out_of_time(run: Run, engine: Own, shop: Shop, timed: Sequence[Order], endless: Sequence[Order]) -> None:
    """Shipping is out of order. Half of the sagas have a deadline."""
    connection = engine.client.store.connection
    ahead = next(orders(run.seed, 1, World(), "ahead"))  # by its end, workers and hosts are up
    engine.start(ahead)
    wait(engine, [ahead.id])
    for definition, made in (
        (retrying.patient("endless", 1e6), endless),
        (retrying.patient("deadline", DEADLINE), timed),
    ):
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
    return retrying.ask(shop, "stock", HELD, [order.id for order in made])


def claim_counts(run: Run, rushes: dict[str, Rush], done: int, charged: int) -> None:
    """What holds however long the machine stands still: of times and rates, nothing."""
    right = rushes[RIGHT]
    text, served = "backoff and jitter: every saga is served", len(right.served)
    claim_rush(run, rushes, RIGHT, text, served == right.sagas, f"{served} sagas")
    text, given_up = "no retry: what sagas give up is done all the same", rushes["no retry"].given_up
    holds = done == len(given_up) > 0 and charged == sum(seen.sagas for seen in rushes.values())
    claim_rush(run, rushes, "no retry", text, holds, f"{done} done after they gave up")


def claim_rushes(run: Run, rushes: dict[str, Rush], done: int, _: int) -> None:
    """What each did until the right one had served all, and in as much time after that."""
    right, most = rushes[RIGHT], rushes[RIGHT].sagas / 2
    vain = rushes["retry at once"].in_vain(right.recovered)
    first, second = rushes["fixed pause"].load(2 * right.recovered, bins=2)
    apart, close = (rushes[name].spread(4) for name in (RIGHT, "backoff"))  # pauses are long by the fourth attempt
    claim = partial(claim_rush, run, rushes)
    text = "no retry: most sagas give up over a step that is done a moment later all the same"
    claim("no retry", text, done > most, f"{done} done after they gave up")
    text = "retry at once: the service does calls that nobody waits for, as long as anybody asks"
    claim("retry at once", text, vain > 0.9, f"in the second half, {vain:.0%} of the answers came to nobody")
    text = "a fixed pause keeps up the load that brought the service down"
    down = len(rushes["fixed pause"].served) < most
    claim("fixed pause", text, down and second > first / 2, f"first half {first:.0f} calls/s, second {second:.0f}")
    text = "backoff alone: whoever failed together comes back together, and waits longer"
    late = rushes["backoff"].recovered > 1.1 * right.recovered
    claim("backoff", text, late and close < apart / 2, f"all fourth attempts within {1000 * close:.0f} ms")
    text = "backoff and jitter: calls spread, the service recovers, and every saga is served"
    fact = f"all fourth attempts within {1000 * apart:.0f} ms, the last saga served after {right.recovered:.1f} s"
    claim(RIGHT, text, len(right.served) == right.sagas and apart > 2 * close, fact)


def claim_rush(run: Run, rushes: dict[str, Rush], name: str, text: str, holds: bool, fact: str) -> None:
    seen = rushes[name]
    fact = f"{len(seen.served)} of {seen.sagas} served by {len(seen.calls):,} calls; {fact}"
    run.claim(text, holds, topics=[BACKOFF], fact=fact, variant=name, wrong_way=name != RIGHT)


def rush_by_every_policy(run: Run) -> dict[str, Rush]:
    """The same rush by each policy, on a service of its own. The wrong ones get twice the time that the right one took.

    So it does not matter how fast the machine is. At scale smoke, the wrong ones run at the same time.
    """
    count = run.pick(smoke=24, demo=100, full=120)
    limits = retrying.Limits(*run.pick((0.01, 0.06), (0.005, 0.1), (0.005, 0.1)), patience=LONGEST)
    tried = retrying.policies(first=limits.timeout, longest=2.0)
    wrong = [name for name in tried if name != RIGHT]
    run.parameters.update({"sagas": count, "calls per second that the service can do": round(1 / limits.service)})
    shop, rushes = open_shop(run, "rush"), dict[str, Rush]()
    for names in [RIGHT], *run.pick([wrong], [[name] for name in wrong], [[name] for name in wrong]):
        with run.step(f"{count} sagas at once: {', '.join(names)}"):
            made = {name: list(orders(run.seed, count, World(), name)) for name in names}
            ports = {name: run.folder / f"{name}.port" for name in names}
            services = [
                run.worker(f"service, {name}", retrying.provide, shop, limits.service, ports[name]) for name in names
            ]
            rushed = asyncio.run(
                retrying.together(retrying.rush(retrying.port_of(ports[n]), made[n], tried[n], limits) for n in names)
            )
            rushes.update(zip(names, rushed, strict=True))
            until(
                "what was asked first to be done",
                lambda: retrying.ask(shop, "payments", CHARGED) == count * len(rushes),
            )
            for service in services:
                service.stop()
            limits = replace(limits, patience=2 * min(rushes[RIGHT].recovered, LONGEST))
    claim_once(run, shop, rushes)
    done = retrying.ask(shop, "payments", DONE_FOR, rushes["no retry"].given_up)
    charged = retrying.ask(shop, "payments", CHARGED)
    (claim_counts if run.scale is Scale.SMOKE else claim_rushes)(run, rushes, done, charged)
    return {name: rushes[name] for name in tried}


def claim_once(run: Run, shop: Shop, rushes: dict[str, Rush]) -> None:
    charged, calls = retrying.ask(shop, "payments", CHARGED), sum(len(seen.calls) for seen in rushes.values())
    cents = retrying.ask(shop, "payments", "select sum(cents)::bigint from accounts")
    cents += retrying.ask(shop, "payments", "select sum(cents)::bigint from charges")
    run.claim(
        "however often a saga asks, it is charged once",
        cents == shop.world.balance * shop.world.customers and calls > run.pick(1, 2, 2) * charged,
        fact=f"{calls:,} calls, {charged:,} charges",
    )


if __name__ == "__main__":
    experiment.main()
