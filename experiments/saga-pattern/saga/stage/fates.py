"""What happens to a step, drawn from a seed: the same schedule for every engine, whoever retries how often.

A fate belongs to (order, action). What has to be counted, such as the failures before a success, is counted in the
service's database: the process that fails may be another one than the one that tries again.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from saga.order import SERVICE, STEPS, Action, AnswerLost, Order, Reply, Request, TransientError, World
from saga.services import shop as shops
from saga.services.effects import Effect
from saga.services.participant import Also, answer
from saga.services.shop import Services, Shop
from saga.windows import Hook, nowhere
from shared import postgres
from shared.postgres import Connection, number
from shared.run import Run
from shared.servers.server import Endpoint


class Fate(StrEnum):
    """How a step goes."""

    FINE = "fine"
    REFUSED = "refused"  # the business says no, and will always
    TRANSIENT = "transient"  # fails twice before anything is done
    SLOW = "slow"
    ANSWER_LOST = "answer lost"  # done, and its first answer never arrives
    BROKEN = "broken"  # fails before anything is done until an operator mends it


TABLES = """
create table attempts (request_id text primary key, number int not null);   -- of fates that are counted
create table mended (request_id text primary key);                          -- by an operator
"""
COUNT = """
insert into attempts (request_id, number) values (%s, 1)
on conflict (request_id) do update set number = attempts.number + 1 returning number
"""
MENDED = "select 1 from mended where request_id = %s"
FAILURES = 2  # of a transient fate
PAUSE = 0.05  # seconds of a slow one
# Share of each fate among steps. Only steps can be refused: a compensation that could be would not be one.
STEP_FATES = {Fate.REFUSED: 0.06, Fate.TRANSIENT: 0.08, Fate.SLOW: 0.05, Fate.ANSWER_LOST: 0.06}
UNDO_FATES = {Fate.TRANSIENT: 0.15, Fate.ANSWER_LOST: 0.15}


@dataclass(frozen=True)
class Fates:
    """The schedule of one run. `fixed` overrides the draw for an (order id, action)."""

    seed: int = 0
    steps: Mapping[Fate, float] = field(default_factory=lambda: STEP_FATES)
    undos: Mapping[Fate, float] = field(default_factory=lambda: UNDO_FATES)
    fixed: Mapping[tuple[str, Action], Fate] = field(default_factory=dict)

    def of(self, order: Order, action: Action) -> Fate:
        if (order.id, action) in self.fixed:
            return self.fixed[order.id, action]
        left = random.Random(f"{self.seed} {order.id} {action}").random()
        for fate, share in (self.steps if action in STEPS else self.undos).items():
            left -= share
            if left < 0:
                return fate
        return Fate.FINE

    def before(self, connection: Connection, request: Request) -> None:
        """What happens before the service does anything. Raises TransientError."""
        match self.of(request.order, request.action):
            case Fate.TRANSIENT if _count(connection, request) <= FAILURES:
                raise TransientError(f"{request.id}: the service is busy")
            case Fate.BROKEN if connection.execute(MENDED, [request.id]).fetchone() is None:
                raise TransientError(f"{request.id}: the service is broken")
            case Fate.SLOW:
                time.sleep(PAUSE)

    def after(self, connection: Connection, request: Request) -> None:
        """What happens when it is done and committed. Raises AnswerLost."""
        if self.of(request.order, request.action) is Fate.ANSWER_LOST and _count(connection, request) == 1:
            raise AnswerLost(f"{request.id}: done, and the answer is lost")


KIND = Fates(steps={}, undos={})  # nothing ever goes wrong


@dataclass(frozen=True)
class FatedServices(Services):
    """The services, as fate has it."""

    fates: Fates = KIND

    def __call__(self, request: Request, also: Also | None = None, at: Hook = nowhere) -> Reply:
        if self.fates.of(request.order, request.action) is Fate.FINE:
            return super().__call__(request, also, at)
        connection = self.connections[SERVICE[request.action]]
        if answer(connection, request) is None:  # what is answered already cannot fail any more
            self.fates.before(connection, request)
        reply = super().__call__(request, also, at)
        self.fates.after(connection, request)
        return reply

    def effect(self, action: Action) -> Effect:
        """The business refuses what is fated to be refused."""
        effect = super().effect(action)

        def fated(connection: Connection, order: Order) -> str:
            if self.fates.of(order, action) is Fate.REFUSED:
                return f"{action}: the business refuses order {order.id}"
            return effect(connection, order)

        return fated


@dataclass(frozen=True)
class FatedShop(Shop):
    """A shop in which steps go as fate has it."""

    fates: Fates = KIND

    def called(self, connections: dict[str, Connection]) -> FatedServices:
        return FatedServices(connections, self.effects, self.fates)


def create(endpoint: Endpoint, prefix: str, fates: Fates = KIND, world: World | None = None) -> FatedShop:
    """A shop with what the fates need in each of its schemas."""
    made = shops.create(endpoint, prefix, world)
    for conninfo in made.conninfos.values():
        with postgres.connect(conninfo) as connection:
            connection.execute(TABLES)
    return FatedShop(made.conninfos, made.world, fates=fates)


def open_shop(run: Run, name: str, fates: Fates = KIND, world: World | None = None) -> FatedShop:
    """The shop `<run>_<name>`. Its schemas are gone at the end of the run, unless they are kept for a look."""
    server, prefix = run.endpoints["postgres"], f"{run.name}_{name}"
    if not run.keep:
        run.cleanup(lambda: shops.drop(server, prefix))
    return create(server, prefix, fates, world)


def mend(connection: Connection, request_id: str) -> None:
    """The operator's repair of a BROKEN step, in the service's database."""
    connection.execute("insert into mended values (%s) on conflict do nothing", [request_id])


def _count(connection: Connection, request: Request) -> int:
    return number(connection, COUNT, request.id)
