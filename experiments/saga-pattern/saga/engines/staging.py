"""What experiment 05 sets up: shops, sites, orders that are cases, and state machines as they should not be."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import product

from saga.engines import Ended, Opener, Site, wait
from saga.fates import KIND, Fate, Fates
from saga.order import Action, Order, World, orders
from saga.services.shop import Shop, create, drop
from saga.stepfunctions.client import Definition, as_samples_catch, without_retries
from saga.windows import EffectWindow, Kill
from shared.faults import Faults
from shared.run import Run
from shared.servers.handle import Handle

CHARGE = 3  # the step, counted from 1
AT_ONCE = 50  # sagas on each engine
WHOLE_TIME = 3  # seconds that a state machine gives a saga when it gives it any
LOST = "drawn", "mended", "caught", "mended-catch"  # cases whose payment is made, and its first answer lost


def open_shop(run: Run, name: str, fates: Fates = KIND) -> Shop:
    """A shop whose schemas are gone at the end of the run."""
    server, prefix = run.endpoints["postgres"], f"{run.name}_{name}"
    run.cleanup(lambda: drop(server, prefix))
    return create(server, prefix, fates)


def site_of(run: Run, shop: Shop, name: str, workers: int = 1, kill: Kill | None = None) -> Site:
    return Site(shop, f"{run.name}_{name}", run.endpoints, run.folder, run.worker, workers, kill)


def dying(run: Run, shop: Shop, name: str) -> Site:
    """A site whose only worker dies when it has made the payment and told nobody. The history has the same name."""
    return site_of(run, shop, name, kill=Kill(EffectWindow.AFTER, run.history_file(name), CHARGE, "worker"))


def one(run: Run, case: str) -> Order:
    """The order of a case; several may share a shop."""
    return next(orders(run.seed, 1, World(), case))


def durable(run: Run, count: int) -> list[Order]:
    """Orders whose payment fails for a while, so that their sagas still run when the server is killed."""
    return list(orders(run.seed, count, World(), "durable"))


def forgotten(run: Run) -> list[Order]:
    """Orders that come no further than to their payment."""
    return list(orders(run.seed, 3, World(), "forgotten"))


def cases(run: Run, count: int) -> Fates:
    """The fates of all these orders' payments. Nothing else goes wrong."""
    wanted = {Fate.ANSWER_LOST: [one(run, case) for case in LOST]}
    wanted |= {Fate.TRANSIENT: durable(run, count), Fate.BROKEN: forgotten(run)}
    fixed = {(order.id, Action.CHARGE): fate for fate, some in wanted.items() for order in some}
    return Fates(steps={}, undos={}, fixed=fixed)


def slug(name: str, window: str) -> str:
    """Names a history, and what is made on servers."""
    return f"{name} {window}".lower().replace(" ", "-")


def carry_out(
    openers: Mapping[str, Opener], sites: Mapping[str, Site], wanted: Sequence[Order]
) -> dict[str, dict[str, Ended]]:
    """All orders on every engine, AT_ONCE at a time; returns, by engine, how each ended."""
    ended = {name: dict[str, Ended]() for name in sites}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(openers[name](site)) for name, site in sites.items()}
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            for order, engine in product(some, engines.values()):
                engine.start(order)
            for name, engine in engines.items():
                ended[name] |= wait(engine, [order.id for order in some])
    return ended


def killed(run: Run, history: str, server: Handle) -> float:
    """kill -9 a server and start it again, as the history says; returns the seconds that it was away."""
    began = time.monotonic()
    with Faults(run.recorder(history, "experiment")).down(server):
        pass
    return time.monotonic() - began


def samples(asl: Definition) -> Definition:
    return as_samples_catch(without_retries(asl))


def whole_timeout(asl: Definition) -> Definition:
    return {**asl, "TimeoutSeconds": WHOLE_TIME}
