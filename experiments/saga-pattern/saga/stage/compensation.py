"""Compensations: sagas undone in one way or another; some for which that fails for good; a queue of refunds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import msgspec

from saga.lessons import compensating, returning
from saga.lessons.compensating import Ask, Went, asker
from saga.lessons.redelivering import Guard
from saga.lessons.returning import Season
from saga.orchestrator import operator
from saga.orchestrator.definition import Retry, read
from saga.orchestrator.machine import NotPossible, Verb
from saga.order import STEPS, Action, Order, Outcome, Request, TransientError, World, orders
from saga.reading import reader, without_nul
from saga.services import effects
from saga.services.effects import Effect
from saga.services.invariant import Standing, judge
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Shop
from saga.stage.engines import Site, drive, wait
from saga.stage.engines.own import Own, opened, schema_of
from saga.stage.fates import Fate, FatedShop, Fates, mend, open_shop
from saga.stage.killing import RecordedKill, hook
from saga.windows import EffectWindow
from shared import codec
from shared.errors import NotReadable
from shared.postgres import connect
from shared.run import Run

QUEUE = """
create table commands (
    position bigint generated always as identity primary key,
    body     bytea not null,                  -- Request
    attempt  int not null default 1,          -- a message that asks again is another message
    done     boolean not null default false,  -- acknowledged
    aside    text                             -- why nobody will ever carry it out: for a person to look at
)
"""
ADD = "insert into commands (body) values (%s)"
NEXT = "select position, body, attempt from commands where not done and aside is null order by position limit 1"
AGAIN = "update commands set attempt = attempt + 1 where position = %s"
DONE = "update commands set done = true where position = %s"
ASIDE = "update commands set aside = %s where position = %s"
Steps = tuple[Action, ...]
_request = reader(Request)
BROKEN = {Action.SHIP: Fate.REFUSED, Action.RELEASE: Fate.BROKEN}


def only(fixed: Mapping[tuple[str, Action], Fate]) -> Fates:
    """Nothing happens but this."""
    return Fates(steps={}, undos={}, fixed=fixed)


def stuck(seed: int, few: int) -> tuple[list[Order], Fates]:
    """Orders that are refused by shipping, and whose pieces cannot be released until somebody mends it."""
    made = list(orders(seed, few, World(), "stuck"))
    return made, only({(order.id, action): fate for order in made for action, fate in BROKEN.items()})


def intervene(engine: Own, shop: Shop, made: list[Order], done: Order) -> str:
    """The operator mends the stock service for all but one, whose pieces are released by hand. Returns a refusal."""
    by_hand, *others = made
    connection = engine.client.store.connection
    with shop.open() as services:
        stock = services.connections["stock"]
        for order in others:
            mend(stock, Request(order.id, Action.RELEASE, order).id)
            operator.tell(connection, order.id, Verb.RETRY)
        with stock.transaction():
            effects.release(stock, by_hand)
        operator.tell(connection, by_hand.id, Verb.SKIP)
    try:
        operator.tell(connection, done.id, Verb.RETRY)
    except NotPossible as error:
        return str(error)
    return ""


# Ways to undo, side by side: whose way it is, is in the names of their shops.


def put_back(run: Run, name: str, how: Mapping[Action, Effect], few: int) -> list[str]:
    """Two orders of each customer; the first is undone by these effects when the second is paid. What is wrong then."""
    shop = open_shop(run, name, world=World(customers=few))
    with compensating.opened(shop) as services:
        returning.pairs(services, shop.world, how, run.seed)
    return judge(shop).violations


def send_back(run: Run, name: str, how: Mapping[Action, Effect], count: int) -> Season:
    """Sold out, sent back by these effects, and sold again."""
    shop = open_shop(run, name, world=World(products=2, pieces=count // 2))
    with compensating.opened(shop) as services:
        return returning.season(services, shop.world, how, run.seed, count)


def undo_in_every_order(run: Run) -> dict[Steps, set[str]]:
    """A complete order for each of the 24 ways to undo it: what was illegal after any of its compensations."""
    shop, ways = open_shop(run, "ways"), list(permutations(STEPS))
    with compensating.opened(shop) as services:
        made = list(orders(run.seed, len(ways), shop.world))
        for order in made:
            compensating.forward(asker(services), order)
        each = zip(made, ways, strict=True)
        return {steps: compensating.undo_watched(services, order, steps) for order, steps in each}


def undo_what_is_delivered(run: Run, name: str, steps: Steps, few: int) -> int:
    """Orders whose parcel cannot be recalled any more: how many customers have the goods and the money?"""
    made = list(orders(run.seed, few, World()))
    shop = open_shop(run, name, only({(order.id, Action.RECALL): Fate.BROKEN for order in made}))
    with compensating.opened(shop) as services:
        return compensating.gifts(services, made, steps)


LOST = tuple((step, Fate.ANSWER_LOST) for step in (Action.CHARGE, Action.SHIP))
ENDS = tuple((step, Fate.REFUSED) for step in STEPS) + LOST


def undo_as_far(run: Run, name: str, which: Callable[[Went], Steps], few: int) -> tuple[int, dict[str, int]]:
    """Sagas end at each step, by a refusal, and at two by an answer that is lost and not asked for again.

    Returns how many orders are half done, and how many steps of each kind were undone.
    """
    groups = {end: list(orders(run.seed, few, World(), f"{end[0]}-{end[1]}")) for end in ENDS}
    fixed = {(order.id, step): fate for (step, fate), made in groups.items() for order in made}
    shop = open_shop(run, name, only(fixed))
    with compensating.opened(shop) as services:
        found = {end: compensating.try_once(services, made, which) for end, made in groups.items()}
    return len(judge(shop).inconsistent), {f"{step} {fate}": number for (step, fate), number in found.items()}


def undo_what_is_stuck(run: Run, how: Callable[[Ask, Order, Steps], None], few: int) -> Standing:
    """Orders of which a compensation fails for good, undone so."""
    made, fates = stuck(run.seed, few)
    shop = open_shop(run, "logged", fates)
    with compensating.opened(shop) as services:
        for order in made:
            went = compensating.forward(asker(services), order)
            how(asker(services), order, compensating.asked(went))
    return judge(shop)


@dataclass(frozen=True)
class Mended:
    """Sagas that were parked, and then ended by an operator."""

    stuck: set[str]
    parked: set[str]
    listed: dict[str, str]  # by saga: the reason in the operator's list
    states: list[dict[str, str]]  # of each order that was stuck, by service, while it was
    nonsense: str  # the refusal of an operator's command that makes no sense
    ended: set[Outcome]
    violations: list[str]


def park_and_mend(run: Run, few: int) -> Mended:
    """By our orchestrator: the saga waits for an operator, who retries all but one, which is done by hand."""
    made, fates = stuck(run.seed, few)
    fine = list(orders(run.seed, few, World(), "fine"))
    shop = open_shop(run, "parked", fates)
    # An attempt that is answered late would be given up with another reason than the service's own.
    definition = msgspec.structs.replace(read(), undo_timeout=30.0, undo_retry=Retry(attempts=3, first=0.05))
    site = Site(shop, run.name, run.endpoints, run.folder, run.worker, keep=run.keep)
    with opened(site, definition) as engine, shop.open() as now:
        ended = drive(engine, [order for pair in zip(made, fine, strict=True) for order in pair], 2 * few)
        parked = {saga for saga, end in ended.items() if end.outcome is Outcome.PARKED}
        states = [compensating.standing(now, order.id) for order in made]
        listed = operator.sagas(engine.client.store.connection, ["parked"], most=10**6)
        nonsense = intervene(engine, shop, made, fine[0])
        ends = {end.outcome for end in wait(engine, parked).values()}
    reasons = {one.id: one.reason for one in listed}
    if run.keep:
        run.output.say(f"as an operator sees it: lab saga list --all --schema {schema_of(run.name)}")
    return Mended({order.id for order in made}, parked, reasons, states, nonsense, ends, judge(shop).violations)


# Refunds from a queue that delivers at least once.


def enqueue(queue: str, requests: Iterable[Request]) -> None:
    """A fresh queue with these commands, in a schema of its own (conninfo)."""
    with connect(queue) as connection, connection.cursor() as cursor:
        cursor.execute(QUEUE)
        cursor.executemany(ADD, [(codec.encode(request),) for request in requests])


def refunder(shop: FatedShop, queue: str, guard: Guard, kill: RecordedKill | None = None) -> None:
    """A process: carries out what is in the queue, then acknowledges it. What it is killed in between comes again."""
    with connect(queue) as commands, shop.open() as services, hook(kill) as at:
        payments = services.connections["payments"]
        while row := commands.execute(NEXT).fetchone():
            position, body, attempt = row
            try:
                guard(payments, request := refund_of(body), attempt)
                at(EffectWindow.AFTER)
                shop.fates.after(payments, request)
                commands.execute(DONE, [position])
            except TransientError:  # no answer came: whoever waits for it asks again, with a new message
                commands.execute(AGAIN, [position])
            except IMPOSSIBLE as error:  # it would come again for ever, and nothing behind it
                commands.execute(ASIDE, [without_nul(str(error)), position])


def refund_of(body: bytes) -> Request:
    """Raises NotReadable where it asks for no refund."""
    if (request := _request(body)).action is not Action.REFUND:
        raise NotReadable(f"it asks for {request.action}")
    return request


KILLS = 3  # of the refunding process, under each guard


@dataclass(frozen=True)
class Delivered:
    """What came of refunds under a guard: of all of them, those that were paid twice, by what."""

    times: dict[str, int]  # by order: how often it was refunded
    killed: int  # paid twice by a kill before the acknowledgement
    asked_again: int  # or since its answer was lost
    fired: int  # kills


def deliver_again(run: Run, guards: Mapping[str, Guard], count: int) -> dict[str, Delivered]:
    """A queue of refunds under each guard: its process is killed at the first ones, answers of the last are lost."""
    names = {variant: guard.__name__ for variant, guard in guards.items()}
    made = {variant: list(orders(run.seed, count, World(), name)) for variant, name in names.items()}
    lost = {order.id for found in made.values() for order in found[-KILLS:]}
    shop = open_shop(run, "refunds", only({(ident, Action.REFUND): Fate.ANSWER_LOST for ident in lost}))
    kills = {
        variant: RecordedKill(EffectWindow.AFTER, nth=2, history=run.history_file(name), process="refunds")
        for variant, name in names.items()
    }
    queues = {variant: run.schema(f"_{name}") for variant, name in names.items()}
    with compensating.opened(shop) as services:
        for variant, found in made.items():
            for order in found:
                services(Request(order.id, Action.CHARGE, order))
            enqueue(queues[variant], [Request(order.id, Action.REFUND, order) for order in found])
    for faults in [kills] * KILLS + [dict[str, RecordedKill]()]:
        refunding = [
            run.worker(names[variant], refunder, shop, queues[variant], guard, faults.get(variant))
            for variant, guard in guards.items()
        ]
        for worker in refunding:
            worker.wait()
    fired = {
        variant: run.judge(name, variant=variant, fault=f"SIGKILL {EffectWindow.AFTER}").faults
        for variant, name in names.items()
    }
    return {variant: delivered(shop, names[variant], lost, len(fired[variant])) for variant in guards}


def delivered(shop: Shop, prefix: str, lost: set[str], fired: int) -> Delivered:
    """As the payment service has it."""
    with shop.open() as services:
        query = "select order_id, refunded from charges where starts_with(order_id, %s)"
        times = dict[str, int](services.connections["payments"].execute(query, [f"{prefix}-"]).fetchall())
    killed = sum(number - 1 for ident, number in times.items() if ident not in lost)
    return Delivered(times, killed, sum(times[ident] - 1 for ident in times if ident in lost), fired)
