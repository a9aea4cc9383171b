"""Messages and sagas that nobody can read: how they come about, and who is given them to read."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import msgspec

from saga.messaging import Header, Outgoing, Topics, command
from saga.orchestrator import machine, operator
from saga.orchestrator.definition import Retry, read, timed
from saga.orchestrator.machine import Verb
from saga.orchestrator.office import Client
from saga.orchestrator.operator import Put
from saga.orchestrator.store import Saga, publish
from saga.order import SERVICE, Action, Order, Outcome, Reply, Request, World
from saga.order import orders as made_from
from saga.services.host import Host, prepare
from saga.services.shop import Shop
from saga.stage.engines import Site, wait
from saga.stage.engines.own import Own, opened
from saga.stage.fates import open_shop
from saga.stage.foreign import odd
from saga.stage.processes import host
from saga.stage.retrying import ask, patient
from saga.transport import Outlet
from shared import codec
from shared.errors import StartFailed
from shared.postgres import Connection
from shared.run import Run
from shared.wait import until

GARBAGE = b"\xff\xfe not JSON"
PLACED = "select count(*) from orders"
CRASHES = 3  # of a consumer that is started again and again
Consumer = Callable[..., None]  # a process: (shop, topics, broker, service)


def payloads(order: Order) -> dict[str, bytes]:
    """What another program may have written for the order of a saga; first, with fields that this one does not know."""
    lines = [{"product": order.product, "quantity": order.quantity}]
    return {"a newer program": codec.encode({"id": order.id, "lines": lines}), **odd(order)}


def of_another_program(client: Client, order: Order, payload: bytes | None = None) -> None:
    """A saga of which nothing is sent, with a payload that this program would not write, or with its own."""
    turn = machine.begin(client.definition, order.id, time.time())
    payload = codec.encode(order) if payload is None else payload
    saga = Saga(turn.state, client.definition.name, client.definition.version, payload)
    client.store.add(saga, turn.note)


def garbled(topics: Topics, order: Order) -> Outgoing:
    """An answer to the first command of the order's saga, by a service that writes Latin-1."""
    value = b'{"saga":"%s","action":"place-order","refused":"gesch\xfctzt"}' % order.id.encode()
    return Outgoing(topics.replies, order.id, value, "garbled", f"{order.id}:{Action.PLACE}#1")


def garbage(topics: Topics, action: Action, key: str, value: bytes) -> Outgoing:
    """A command that is none."""
    return Outgoing(topics.commands[SERVICE[action]], key, value, f"{key}#1", key, ((Header.REPLY_TO, "nowhere"),))


def stray_replies(topics: Topics, known: Order) -> list[Outgoing]:
    """Answers that fit nothing: no saga, no step that was ever asked, no answer at all."""
    nobody = Reply("nobody", Action.PLACE)
    never_asked = Reply(known.id, Action.REFUND)
    return [
        Outgoing(topics.replies, nobody.saga, codec.encode(nobody), "stray-1", ""),
        Outgoing(topics.replies, known.id, codec.encode(never_asked), "stray-2", ""),
        Outgoing(topics.replies, nobody.saga, GARBAGE, "stray-3", ""),
    ]


def values(action: Action, order: Order) -> list[bytes]:
    """What another program may have written for a command: no JSON at all, then JSON with one thing wrong."""
    whole = b'{"saga":"%s","action":"%s","order":%s}'
    return [GARBAGE, *(whole % (order.id.encode(), action.encode(), what) for what in odd(order).values())]


def commands(topics: Topics, action: Action, orders: Sequence[Order], poisoned: int) -> list[Outgoing]:
    """One command for each order; instead of number `poisoned`, counted from 0, some that are none."""
    made = [command(topics, Request(order.id, action, order), 1, order.id) for order in orders]
    order = orders[poisoned]
    made[poisoned : poisoned + 1] = [garbage(topics, action, order.id, value) for value in values(action, order)]
    return made


# Sagas for our orchestrator, and its operator.


@dataclass(frozen=True)
class Desk:
    """Our orchestrator, as its operator sees it."""

    run: Run
    shop: Shop
    engine: Own

    @property
    def client(self) -> Client:
        return self.engine.client

    @property
    def connection(self) -> Connection:
        return self.client.store.connection

    def orders(self, count: int, prefix: str) -> list[Order]:
        return list(made_from(self.run.seed, count, World(), prefix))

    def ended(self, sagas: Iterable[str]) -> dict[str, Outcome]:
        """Wait until they have ended, or wait for the operator."""
        return {saga: end.outcome for saga, end in wait(self.engine, sagas).items()}

    def parked(self) -> dict[str, str]:
        """Why sagas wait for the operator, by saga."""
        return {one.id: one.reason for one in operator.sagas(self.connection, ["parked"])}

    def put_aside(self, count: int) -> list[Put]:
        """Wait until so many answers are put aside, at least; all that are."""
        until("answers to be put aside", lambda: len(operator.put_aside(self.connection)) >= count)
        return operator.put_aside(self.connection)

    def retry(self, sagas: Iterable[str]) -> dict[str, Outcome]:
        """The operator has these go on; how they then end."""
        for saga in (told := list(sagas)):
            operator.tell(self.connection, saga, Verb.RETRY)
        return self.ended(told)

    @property
    def newer(self) -> Client:
        """A client of a newer definition."""
        return replace(self.client, definition=msgspec.structs.replace(self.client.definition, version=2))


@contextmanager
def desk(run: Run) -> Iterator[Desk]:
    """Everything is up, and nothing goes wrong by itself."""
    shop = open_shop(run, "engine")
    with opened(Site(shop, run.name, run.endpoints, run.folder, run.worker), patient("order", 60.0)) as engine:
        yield Desk(run, shop, engine)


@dataclass(frozen=True)
class Mixed:
    """Sagas, by what they are."""

    fine: list[str]
    unreadable: list[str]  # their orders are of other programs
    unknown: list[str]  # of a newer definition, which nobody has yet

    @property
    def all(self) -> list[str]:
        return [*self.fine, *self.unreadable, *self.unknown]


def begin_among_others(desk: Desk, count: int) -> Mixed:
    """Those that nobody can read come after the first that is fine, with three answers that fit nothing."""
    fine, bad = desk.orders(count, "fine"), desk.orders(count, "poison")
    written, unknown = payloads(bad[0]).values(), bad[count // 2 :]
    unreadable = [msgspec.structs.replace(bad[0], id=f"unreadable-{number}") for number in range(len(written))]
    desk.client.start(fine[0])
    for order, payload in zip(unreadable, written, strict=True):
        of_another_program(desk.client, order, payload)
    for order in unknown:
        desk.newer.start(order)
    desk.client.outlet.send(stray_replies(desk.client.topics, fine[0]))
    for order in fine[1:]:
        desk.client.start(order)
    return Mixed(*([order.id for order in some] for some in (fine, unreadable, unknown)))


def deploy_newer(desk: Desk) -> None:
    """The newer definition comes."""
    publish(desk.connection, desk.newer.definition)


def begin_garbled(desk: Desk, count: int) -> list[str]:
    """Sagas that wait for long for an answer, which comes in Latin-1."""
    slow = msgspec.structs.replace(timed(read(), attempt=600.0, retry=Retry(), whole=600.0), name="garbled")
    publish(desk.connection, slow)
    made, client = desk.orders(count, "garbled"), replace(desk.client, definition=slow)
    for order in made:
        of_another_program(client, order)
    client.outlet.send([garbled(client.topics, order) for order in made])
    return [order.id for order in made]


# Commands that are none, and who reads them.


@dataclass(frozen=True)
class Lane:
    """A topic of commands to place orders, with some in the middle that are none."""

    run: Run
    topics: Topics
    made: list[Order]

    @property
    def before(self) -> int:
        """How many orders come before those that nobody can read."""
        return len(self.made) // 2

    @property
    def poison(self) -> list[bytes]:
        return values(Action.PLACE, self.made[self.before])

    def dying(self, consumer: Consumer, of: str) -> tuple[int, int]:
        """Started CRASHES times, each time from where it was: how often it died of this, and the orders placed."""
        shop = self._shop(consumer.__name__)
        return sum(self._dies(consumer, shop, of) for _ in range(CRASHES)), ask(shop, "orders", PLACED)

    def hosted(self, kind: type[Host]) -> tuple[int, list[Put]]:
        """Read until all others are placed: how many, and what was put aside."""
        shop, rest = self._shop("parks"), len(self.made) - 1
        self.run.worker("parking host", host, shop, self.topics, self.run.endpoints["kafka"], ["orders"], kind=kind)
        until("the orders behind them to be placed", lambda: ask(shop, "orders", PLACED) == rest, 120)
        with shop.open() as services:
            return ask(shop, "orders", PLACED), operator.put_aside(services.connections["orders"])

    def _shop(self, name: str) -> Shop:
        prepare(shop := open_shop(self.run, name))
        return shop

    def _dies(self, consumer: Consumer, shop: Shop, of: str) -> bool:
        arguments = shop, self.topics, self.run.endpoints["kafka"], "orders"
        try:
            self.run.worker(consumer.__name__, consumer, *arguments).wait(120)
        except StartFailed as error:
            return of in str(error)
        return False


def lane(run: Run, count: int) -> Lane:
    topics, broker = Topics(f"{run.name}.poison"), run.endpoints["kafka"]
    topics.create(broker, partitions=1)
    made = Lane(run, topics, list(made_from(run.seed, count, World(), "commands")))
    with closing(Outlet(broker)) as outlet:
        outlet.send(commands(topics, Action.PLACE, made.made, made.before))
        outlet.flush()
    return made
