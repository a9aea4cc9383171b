"""Plays of choreographies: the same orders and the same kills, however the services are written; and what is judged."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from saga.choreography import store
from saga.choreography.flow import Arrow, Flow
from saga.choreography.machine import ENDS, MACHINES, Machine, Machines
from saga.choreography.service import Service, submitted
from saga.choreography.store import Envelope, Letter
from saga.choreography.wire import sending
from saga.order import STEPS, Action, Order, World, orders
from saga.services.invariant import Standing, judge
from saga.services.shop import Services
from saga.stage.choreography import Cast, Stage, create, drop, ended, said, settle, submit
from saga.stage.engines import choreography as engine
from saga.stage.fates import KIND, Fate, Fates
from saga.stage.foreign.choreography import Events
from saga.stage.foreign.claimed import claim_foreign
from saga.windows import ServiceWindow
from saga.wrong.choreographing import ByCustomer, WithoutInbox, WithoutOutbox, submitted_by_customer
from shared import postgres
from shared.event import Event, new_id
from shared.history import History, Recorder
from shared.run import Run
from shared.tap import Tap
from shared.worker import Worker

CHARGED = "select order_id from charges where status = 'charged'"
Starter = Callable[..., Worker]  # Run.worker, or what a test has in its place
# Who dies when, in a play of each kind: where its own weakness shows.
KILLS: Mapping[type[Service], Mapping[str, Sequence[ServiceWindow]]] = {
    ByCustomer: {},
    WithoutInbox: {"stock": [ServiceWindow.SENT]},  # what it has sent comes again
    WithoutOutbox: {"payments": [ServiceWindow.COMMITTED]},
    Service: {"stock": [ServiceWindow.SENT], "payments": [ServiceWindow.COMMITTED]},
}


@dataclass(frozen=True)
class Away:
    """How orders stand while a service is away: those that are paid, and how many have ended."""

    paid: frozenset[str]
    ended: int


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
    """Two orders of each of so many customers, at the same time; the second half of them cannot pay the first one.

    Paid ones are the first in every partition: what comes again after a kill may be no more than that first one.
    """
    names, product = world.customer_names()[:count], world.product_names()[0]
    orders = [Order(f"{name}-{which}", name, product, 1, 500) for name in names for which in ("first", "second")]
    refused = {(f"{name}-first", Action.CHARGE): Fate.REFUSED for name in names[count // 2 :]}
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


def play_without_shipping(stage: Stage, orders: Sequence[Order], starter: Starter) -> tuple[Away, list[Event]]:
    """Shipping starts when the others rest; returns how orders stand by then, and all events until the last rest."""
    with recorded(stage) as tap:
        cast = Cast(stage, starter).start("orders", "stock", "payments")
        submit(stage, orders)
        cast.until_rest(without="shipping")
        away = Away(charged(stage), ended(stage))
        cast.start("shipping").until_rest()
        cast.stop()
        tap.catch_up()
    return away, tap.events


def charged(stage: Stage) -> frozenset[str]:
    """The orders that are paid, as the database of payments has it."""
    with postgres.connect(stage.conninfo("payments")) as connection:
        return frozenset(order for (order,) in connection.execute(CHARGED))


def play_pairs(stage: Stage, orders: Sequence[Order], kind: type[Service], starter: Starter) -> None:
    """Each service finds all orders there when it starts; shipping starts with payments. Until nothing more happens."""
    names = [machine.service for machine in stage.machines] if kind is ByCustomer else ["payments"]
    cast, kills = Cast(stage, starter, dict.fromkeys(names, kind)), KILLS[kind]
    with recorded(stage) as tap:
        submit(stage, orders, submitted_by_customer if kind is ByCustomer else submitted)
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
    with sending(stage.broker) as send:
        send([store.outgoing(stage.prefix, event) for event in heard])
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


def alone(machine: Machine, services: Services, order: Order, heard: Iterable[str]) -> list[str]:
    """What one service says to these events about an order, one after the other: a unit test, nobody else is there."""
    said: list[Envelope] = []
    service = Service(machine, services, said.extend, "alone")
    for number, kind in enumerate(heard):
        one = store.outgoing("alone", replace(submitted(order), type=kind, id=f"{order.id}/{number}"))
        service.turn([Letter(f"alone/{order.id}/{number}", one.key.encode(), one.value, one.headers)])
    events = (Event.from_kafka(one.key.encode(), one.value, one.headers) for one in said)
    return [event.type for event in events if event.correlation_id == order.id]


def passing(stage: Stage, order: Order, seen: Flow) -> dict[str, bool]:
    """Whether each service that took part, alone, answers another such order's events as it was seen to, once each."""
    found = {}
    for machine in (machine for machine in stage.machines if machine.service in seen.services):
        answers = {arrow.heard: arrow.said for arrow in seen.arrows if arrow.service == machine.service}
        heard = [reaction.hears for reaction in machine.reactions if reaction.hears in answers]
        with stage.shop.open() as services:
            told = alone(machine, services, order, heard)
        found[machine.service] = told == [answers[event] for event in heard]
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


# What an experiment sets up and judges.


WORLD = World()
RIGHT = "outbox, inbox, correlation ids"  # what is said of a choreography as it should be
VARIANTS = {
    ByCustomer: "correlated by customer",
    WithoutInbox: "no inbox",
    WithoutOutbox: "no outbox",
    Service: RIGHT,
}


def open_stage(run: Run, name: str, machines: Machines = MACHINES, fates: Fates = KIND) -> Stage:
    """A stage whose schemas are gone at the end of the run, unless they are kept for a look."""
    history = run.history_file(name)
    database, broker = run.endpoints["postgres"], run.endpoints["kafka"]
    stage = create(database, broker, f"{run.name}_{name}".replace("-", "_"), history, machines, fates, WORLD)
    if not run.keep:
        run.cleanup(lambda: drop(database, stage))
    return stage


def judged(run: Run, stage: Stage, variant: str = RIGHT, fault: str | None = None) -> History:
    """The judgement of what was played on a stage that is at rest."""
    settle(stage)
    return run.judge(stage.history.stem, variant=variant, wrong_way=variant != RIGHT, fault=fault)


def note_flow(run: Run, flow: Flow, variant: str) -> None:
    """Figures of how large a flow is."""
    sizes = {"services": len(flow.services), "event types": len(flow.events), "messages": len(flow.messages)}
    for what, count in {**sizes, "reactions": len(flow.arrows)}.items():
        run.figure("size of the flow", count, "", variant=variant, x=what, x_label="number of")
    run.figure("pairs of services that hear each other", len(flow.mutual()), "pairs", variant=variant)


def keep_flow(run: Run, flow: Flow) -> None:
    """The flow as a picture, in two formats, beside the run's record."""
    (run.folder / "flow.mmd").write_text(flow.mermaid() + "\n")
    (run.folder / "flow.dot").write_text(flow.dot() + "\n")


def note_paths(run: Run, paths: Iterable[Sequence[Arrow]]) -> None:
    """Figures of how many services a test of each path of the flow needs."""
    for path in paths:
        name = next((arrow.said for arrow in path if arrow.said.endswith("refused")), "all goes well")
        needed = len({arrow.service for arrow in path})
        run.figure("services that a test needs", needed, "services", variant=RIGHT, x=name, x_label="path")


def claim_unreadable(run: Run, topic: str) -> None:
    """The claim about orders that nobody can read."""
    claim_foreign(run, "choreography", engine.opened, Events, [topic], variant=RIGHT)


@dataclass(frozen=True)
class Course:
    """Orders that came while shipping was away, and ended when it was back: with everything that was said."""

    stage: Stage
    todo: list[Order]
    away: Away
    events: list[Event]

    @property
    def ended(self) -> int:
        return ended(self.stage)

    @property
    def refused(self) -> set[str]:
        """The orders that a service refuses, by schedule."""
        return {order.id for order in self.todo if refused_at(self.stage.shop.fates, order)}

    @property
    def payable(self) -> set[str]:
        """The orders that are paid while shipping is away."""
        fates = self.stage.shop.fates
        return {order.id for order in self.todo if refused_at(fates, order) in (None, Action.SHIP)}


def run_course(run: Run, count: int) -> Course:
    """Of the orders, one is refused at each step, and the others have their seeded fates."""
    todo = list(orders(run.seed, count, WORLD))
    stage = open_stage(run, "flow", fates=one_refused_at_each(todo, run.seed))
    away, events = play_without_shipping(stage, todo, run.worker)
    judged(run, stage)
    return Course(stage, todo, away, events)


def play_killed(run: Run, count: int) -> tuple[Stage, History, int]:
    """Seeded failures, and every service killed in every window; the stage, its history, and the kills wanted."""
    todo = list(orders(run.seed, count, WORLD))
    stage = open_stage(run, "kills", fates=Fates(run.seed))
    play(stage, todo, run.worker, kills=list(ServiceWindow))
    return stage, judged(run, stage, fault="SIGKILL"), len(stage.machines) * len(ServiceWindow)


def half_done_and_twice(run: Run, kind: type[Service], count: int) -> tuple[Standing, int]:
    """Two orders of each of so many customers at once, by services of this kind, which are killed where it is weak.

    Returns how they stand, and how many customers were charged twice.
    """
    todo, fates = pairs(count, WORLD)
    stage = open_stage(run, f"pairs-{(list(VARIANTS).index(kind) + 1) % len(VARIANTS)}", fates=fates)
    play_pairs(stage, todo, kind, run.worker)
    judged(run, stage, VARIANTS[kind], fault=None if kind is ByCustomer else "SIGKILL")
    standing = judge(stage.shop)
    return standing, sum("charged 2," in one for one in standing.violations)


def unpayable(run: Run) -> tuple[Order, Order, Fates]:
    """Two orders that cannot be paid; nothing else goes wrong."""
    one, other = orders(run.seed, 2, WORLD)
    refused = {(order.id, Action.CHARGE): Fate.REFUSED for order in (one, other)}
    return one, other, Fates(steps={}, undos={}, fixed=refused)
