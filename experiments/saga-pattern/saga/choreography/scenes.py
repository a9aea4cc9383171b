"""Short plays for experiment and tests: the same orders and the same kills, however the services are written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from saga.choreography import store
from saga.choreography.machine import ENDS
from saga.choreography.playing import Cast, Kind
from saga.choreography.service import ServiceWindow
from saga.choreography.stage import Stage, ended, said, submit
from saga.choreography.wire import sender
from saga.fates import Fate, Fates
from saga.order import STEPS, Action, Order, World
from shared import postgres
from shared.event import Event, new_id
from shared.history import Recorder
from shared.tap import Tap
from shared.worker import Worker

UP_TO_PAYMENT = STEPS[:3]
Starter = Callable[..., Worker]  # Run.worker, or what a test has in its place
# Who dies when, in a play of each kind: where its own weakness shows.
KILLS: Mapping[Kind, Mapping[str, Sequence[ServiceWindow]]] = {
    Kind.NO_CORRELATION: {},
    Kind.NO_INBOX: {"stock": [ServiceWindow.SENT]},  # what it has sent comes again
    Kind.NO_OUTBOX: {"payments": [ServiceWindow.COMMITTED]},
    Kind.RIGHT: {"stock": [ServiceWindow.SENT], "payments": [ServiceWindow.COMMITTED]},
}


@contextmanager
def recorded(stage: Stage) -> Iterator[Tap]:
    """Somebody who reads all topics, without being part of the play."""
    with Recorder(stage.history, "reader") as recorder, Tap("reader", stage.broker, stage.topics, recorder) as tap:
        yield tap


def refused_at(fates: Fates, order: Order) -> Action | None:
    """The step at which the schedule has an order refused."""
    return next((action for action in STEPS if fates.of(order, action) is Fate.REFUSED), None)


def one_refused_at_each(orders: Sequence[Order], seed: int) -> Fates:
    """The seeded schedule, in which the first four orders are refused at one step each, and the fifth at none."""
    fixed = {(order.id, action): Fate.FINE for order in orders[:5] for action in STEPS}
    fixed |= {(order.id, action): Fate.REFUSED for order, action in zip(orders, STEPS, strict=False)}
    return Fates(seed, fixed=fixed)


def pairs(count: int, world: World) -> tuple[list[Order], Fates]:
    """Two orders of each of so many customers, at the same time; the payment of the first is refused."""
    names, product = world.customer_names()[:count], world.product_names()[0]
    orders = [Order(f"{name}-{which}", name, product, 1, 500) for name in names for which in ("first", "second")]
    refused = {(order.id, Action.CHARGE): Fate.REFUSED for order in orders if order.id.endswith("first")}
    return orders, Fates(steps={}, undos={}, fixed=refused)


def suspects(count: int, world: World) -> list[Order]:
    """Orders every fourth of which is suspicious."""
    names, product = world.customer_names(), world.product_names()[0]
    cents = [30_000 if number % 4 == 0 else 500 for number in range(count)]
    return [Order(f"fraud-{n}", names[n % len(names)], product, 1, price) for n, price in enumerate(cents)]


def play(stage: Stage, orders: Iterable[Order], starter: Starter, kills: Sequence[ServiceWindow] = ()) -> list[Event]:
    """All services, each killed once in each of these windows, until nothing more happens. Returns all events."""
    with recorded(stage) as tap:
        cast = Cast(stage, starter).start(kills=kills)
        submit(stage, orders)
        cast.until_rest()
        cast.stop()
        tap.catch_up()
    return tap.events


def play_without_shipping(stage: Stage, orders: Sequence[Order], starter: Starter) -> tuple[int, list[Event]]:
    """Shipping starts when the others have come as far as they can; returns how many are paid by then, and all events.

    Raises DeadlineExceeded when the others do not come so far, or not all orders end afterwards.
    """
    early = sum(refused_at(stage.shop.fates, order) in UP_TO_PAYMENT for order in orders)
    paid = len(orders) - early
    with recorded(stage) as tap:
        cast = Cast(stage, starter).start("orders", "stock", "payments")
        submit(stage, orders)
        cast.wait_for(f"{paid} orders to be paid", lambda: said(stage, "payments", ["payments.charged"]) == paid)
        cast.wait_for(f"{early} orders to end", lambda: ended(stage) == early)
        cast.start("shipping").until_ended(len(orders))
        cast.stop()
        tap.catch_up()
    return paid, tap.events


def play_pairs(stage: Stage, orders: Sequence[Order], kind: Kind, starter: Starter) -> None:
    """Each service finds all orders there when it starts; shipping starts with payments. Until nothing more happens."""
    names = [machine.service for machine in stage.machines] if kind is Kind.NO_CORRELATION else ["payments"]
    cast, kills = Cast(stage, starter, dict.fromkeys(names, kind)), KILLS[kind]
    with recorded(stage) as tap:
        submit(stage, orders, naive=kind is Kind.NO_CORRELATION)
        cast.start("orders")
        cast.wait_for("orders to be placed", lambda: said(stage, "orders", ["orders.placed"]) == len(orders))
        cast.start("stock", kills=kills.get("stock", ()))
        cast.wait_for("stock to reserve", lambda: said(stage, "stock", ["stock.reserved"]) == len(orders))
        for name in ("payments", "shipping"):
            cast.start(name, kills=kills.get(name, ()))
        cast.until_rest()
        cast.stop()
        tap.catch_up()


def play_again(stage: Stage, events: Iterable[Event], starter: Starter) -> int:
    """Every event that somebody hears, once more under an id of its own; returns how many."""
    again = [replace(event, id=new_id()) for event in {event.id: event for event in events}.values()]
    heard = [event for event in again if event.type not in ENDS]
    cast = Cast(stage, starter).start()
    sender(stage.broker)([store.outgoing(stage.prefix, event) for event in heard])
    cast.until_rest()
    cast.stop()
    return len(heard)


def held(stage: Stage) -> list[store.Held]:
    """What all services keep for an operator."""
    found = []
    for conninfo in stage.shop.conninfos.values():
        with postgres.connect(conninfo) as connection:
            found += [one for one in store.held(connection) if one.waits]
    return found


def run_away(stage: Stage, order: Order, starter: Starter, limit: int) -> list[Event]:
    """One order among services that answer each other for ever, stopped when so many events have been said."""
    with recorded(stage) as tap:
        cast = Cast(stage, starter).start()
        submit(stage, [order])
        cast.wait_for(f"{limit} events", lambda: len(tap.ids) >= limit)
        cast.stop()
        tap.catch_up()
    return tap.events
