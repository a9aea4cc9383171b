"""Retries against a service that can do only so much: what its callers' policy does to it when they are too many.

The service is a process. It does one call after the other; the rest wait in a queue. A caller that waits for too long
asks again. The service is not told, and does the abandoned call as well: so overload feeds itself, and stays when its
cause is gone (Bronson et al., Metastable Failures in Distributed Systems, HotOS 2021). The remedy, after Brooker,
Exponential Backoff And Jitter (AWS Architecture Blog, 2015): ask less and less often, and not all at the same time.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from saga.orchestrator import operator
from saga.orchestrator.definition import Definition, Retry, read, timed
from saga.orchestrator.store import publish
from saga.order import Action, Order, Outcome, Request, World, orders
from saga.reading import reader
from saga.services.invariant import judge
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Services, Shop
from saga.stage.engines import Site, wait
from saga.stage.engines.own import Own, opened
from saga.stage.fates import Fate, Fates, mend, open_shop
from shared import codec, postgres
from shared.errors import NotReadable
from shared.run import Run
from shared.wait import until

CHARGED = "select count(*) from charges"
CENTS = "select (select sum(cents) from accounts) + (select sum(cents) from charges)"
DONE_FOR = "select count(*) from charges where order_id = any(%s)"
HELD = "select coalesce(sum(quantity), 0) from reservations where order_id = any(%s) and status = 'reserved'"
HOST = "127.0.0.1"
RIGHT = "backoff and jitter"
BINS = 40  # points of a load curve
FOR_EVER = 10**9  # attempts: until the patience ends
NUMBER = 4  # bytes of an attempt's number
Address = tuple[str, int]
_request = reader(Request)


@dataclass(frozen=True)
class Times:
    """Seconds: what a call takes the service, what a caller waits for an answer, and for its saga to go on at all."""

    service: float
    timeout: float
    patience: float


def policies(first: float, longest: float) -> dict[str, Retry]:
    """The usual ones, as the definition of a saga has them. The last one is what ours uses."""
    return {
        "no retry": Retry(attempts=1),
        "retry at once": Retry(FOR_EVER, first=0, jitter=0),
        "fixed pause": Retry(FOR_EVER, first, factor=1, longest=longest, jitter=0),
        "backoff": Retry(FOR_EVER, first, factor=2, longest=longest, jitter=0),
        RIGHT: Retry(FOR_EVER, first, factor=2, longest=longest, jitter=0.5),
    }


# The service. A call is a datagram: the number of the attempt, then the request. Who waits no more for this attempt
# hears no answer to it, as with a connection that was closed.


class Provider(asyncio.DatagramProtocol):
    """Carries out charges, one at a time, in the order in which they came."""

    def __init__(self, services: Services, seconds: float) -> None:
        self.services = services
        self.seconds = seconds
        self.waiting: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()
        self.aside: list[tuple[bytes, str]] = []  # calls that are none, and why

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.waiting.put_nowait((data, addr))

    async def work(self, transport: asyncio.DatagramTransport) -> None:
        while True:
            call, caller = await self.waiting.get()
            try:
                await asyncio.gather(asyncio.to_thread(self._charge, call[NUMBER:]), asyncio.sleep(self.seconds))
            except IMPOSSIBLE as error:
                self.aside.append((call, str(error)))
                print(f"put aside: {error}: {call!r}", flush=True)
                continue
            transport.sendto(call, caller)  # as an answer, the call itself will do

    def _charge(self, call: bytes) -> None:
        if (request := _request(call)).action is not Action.CHARGE:
            raise NotReadable(f"it asks for {request.action}")
        self.services(request)


def provide(shop: Shop, seconds: float, port: Path) -> None:
    """A process: the service. Writes its port into a file, then works until it is stopped."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        transport, provider = await loop.create_datagram_endpoint(lambda: Provider(services, seconds), (HOST, 0))
        port.write_text(str(transport.get_extra_info("sockname")[1]))
        await provider.work(transport)

    with shop.open() as services:
        asyncio.run(serve())


def port_of(port: Path) -> int:
    """Wait until the service is up."""
    return int(until("the service to be up", lambda: port.read_text() if port.exists() else ""))


# Its callers: sagas that all want their charge at the same moment.


@dataclass(frozen=True)
class Call:
    """One attempt. Seconds since the rush began."""

    order: str
    number: int  # of the attempt, from 1
    at: float
    answered: bool


@dataclass
class Rush:
    """What the callers saw."""

    sagas: int
    calls: list[Call] = field(default_factory=list)
    served: dict[str, float] = field(default_factory=dict)  # order -> the second at which its answer came
    vain: list[float] = field(default_factory=list)  # when an answer came that nobody waited for any more

    @property
    def given_up(self) -> list[str]:
        """The orders whose callers lost patience."""
        return sorted({call.order for call in self.calls} - self.served.keys())

    @property
    def recovered(self) -> float:
        """The second at which the last one was served; infinite where not all were."""
        return max(self.served.values()) if len(self.served) == self.sagas else math.inf

    def load(self, seconds: float, bins: int) -> list[float]:
        """Calls per second, in so many equal parts of the first so many seconds."""
        width = seconds / bins
        counted = Counter(int(call.at / width) for call in self.calls)
        return [counted[number] / width for number in range(bins)]

    def spread(self, number: int) -> float:
        """Seconds between the first and the last saga's attempt of this number."""
        found = [call.at for call in self.calls if call.number == number]
        return max(found) - min(found) if found else 0.0

    def in_vain(self, after: float) -> float:
        """Share of the answers after this second that came to nobody; 0 where there was none."""
        vain, useful = (sum(at > after for at in answers) for answers in (self.vain, self.served.values()))
        return vain / (vain + useful) if vain else 0.0


class Callers(asyncio.DatagramProtocol):
    """The sagas' end of the line."""

    def __init__(self) -> None:
        self.open: dict[bytes, asyncio.Future[None]] = {}
        self.vain: list[float] = []  # time.monotonic() of answers that come too late

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if (waiting := self.open.get(data)) and not waiting.done():
            waiting.set_result(None)
        else:
            self.vain.append(time.monotonic())


async def rush(port: int, made: Sequence[Order], retry: Retry, limits: Times) -> Rush:
    """All orders want to be charged now, and ask by this policy until they are or have lost patience."""
    loop, seen = asyncio.get_running_loop(), Rush(len(made))
    transport, callers = await loop.create_datagram_endpoint(Callers, remote_addr=(HOST, port))
    began = time.monotonic()

    async def ask(call: bytes) -> bool:
        callers.open[call] = answer = loop.create_future()
        transport.sendto(call)
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.timeout):
                await answer
        del callers.open[call]
        return not answer.cancelled()

    async def charge(order: Order) -> None:
        request, attempt, pause = codec.encode(Request(order.id, Action.CHARGE, order)), 0, 0.0
        while attempt < retry.attempts and time.monotonic() - began + pause < limits.patience:
            await asyncio.sleep(pause)
            at, attempt = time.monotonic() - began, attempt + 1
            answered = await ask(attempt.to_bytes(NUMBER, "big") + request)
            seen.calls.append(Call(order.id, attempt, at, answered))
            if answered:
                seen.served[order.id] = time.monotonic() - began
                return
            pause = retry.pause(attempt, f"{order.id} {attempt}")

    try:
        await asyncio.gather(*map(charge, made))
    finally:
        transport.close()
    seen.vain = [at - began for at in callers.vain]
    return seen


async def together(rushing: Iterable[Coroutine[None, None, Rush]]) -> list[Rush]:
    """Several rushes at the same time."""
    return await asyncio.gather(*rushing)


def note_rushes(run: Run, rushes: dict[str, Rush]) -> None:
    """Figures of what each policy did."""
    span = max(seen.calls[-1].at for name, seen in rushes.items() if name != "no retry")
    for name, seen in rushes.items():
        figure = partial(run.figure, variant=name, wrong_way=name != RIGHT)
        for number, load in enumerate(seen.load(span, BINS)):
            at = round(number * span / BINS, 2)
            figure("load on the service", load, "calls/s", x=at, x_label="seconds of the rush")
        figure("calls for each saga", len(seen.calls) / seen.sagas, "calls")
        figure("sagas served", len(seen.served), "sagas", of=seen.sagas)
        if len(seen.served) == seen.sagas:
            figure("until all are served", seen.recovered, "s")


def ask(shop: Shop, service: str, query: str, *values: object) -> int:
    """The one number that the query finds in the service's database."""
    with postgres.connect(shop.conninfos[service]) as connection:
        row = connection.execute(query, values).fetchone()
    return int(row[0]) if row else 0


def patient(name: str, seconds: float) -> Definition:
    """The order saga, which asks again and again until its time is over."""
    again = Retry(FOR_EVER, first=0.1, longest=0.5)
    return msgspec.structs.replace(timed(read(), attempt=1.0, retry=again, whole=seconds), name=name)


@dataclass(frozen=True)
class Rushed:
    """The same rush by each policy, and what the payment service had done in the end."""

    by: dict[str, Rush]  # policy -> what its callers saw
    done_in_vain: int  # charges of sagas that gave up without a retry
    charged: int
    cents: int  # in accounts and charges
    opening: int  # cents that there were

    @property
    def calls(self) -> int:
        return sum(len(seen.calls) for seen in self.by.values())


def rush_by_every_policy(run: Run, longest: float) -> Rushed:
    """The same rush by each policy, on a service of its own. The wrong ones get twice the time that the right one took.

    So it does not matter how fast the machine is. At scale smoke, the wrong ones run at the same time.
    """
    count = run.pick(smoke=24, demo=100, full=120)
    limits = Times(*run.pick((0.01, 0.06), (0.005, 0.1), (0.005, 0.1)), patience=longest)
    tried = policies(first=limits.timeout, longest=2.0)
    wrong = [name for name in tried if name != RIGHT]
    run.parameters.update({"sagas": count, "calls per second that the service can do": round(1 / limits.service)})
    shop, rushes = open_shop(run, "rush"), dict[str, Rush]()
    for names in [RIGHT], *run.pick([wrong], [[name] for name in wrong], [[name] for name in wrong]):
        with run.step(f"{count} sagas at once: {', '.join(names)}"):
            rushes |= rush_at_once(run, shop, {name: tried[name] for name in names}, count, limits)
            limits = replace(limits, patience=2 * min(rushes[RIGHT].recovered, longest))
    cents = ask(shop, "payments", CENTS)
    opening = shop.world.balance * shop.world.customers
    done = ask(shop, "payments", DONE_FOR, rushes["no retry"].given_up)
    return Rushed({name: rushes[name] for name in tried}, done, ask(shop, "payments", CHARGED), cents, opening)


def rush_at_once(run: Run, shop: Shop, by: dict[str, Retry], count: int, limits: Times) -> dict[str, Rush]:
    """A rush by each of these policies at the same time, each on a service of its own, until all is done."""
    before = ask(shop, "payments", CHARGED)
    made = {name: list(orders(run.seed, count, World(), name)) for name in by}
    ports = {name: run.folder / f"{name}.port" for name in by}
    services = [run.worker(f"service, {name}", provide, shop, limits.service, ports[name]) for name in by]
    rushed = asyncio.run(together(rush(port_of(ports[name]), made[name], by[name], limits) for name in by))
    asked = before + count * len(by)
    until("what was asked first to be done", lambda: ask(shop, "payments", CHARGED) == asked)
    for service in services:
        service.stop()
    return dict(zip(by, rushed, strict=True))


# Sagas that wait for a service that is out of order.


@dataclass(frozen=True)
class Waited:
    """Sagas with a deadline, and as many without one. Pieces: those that are reserved for them."""

    seconds: list[float]  # from the start of each that had a deadline to its end
    outcomes: set[Outcome]
    reasons: list[str]
    held: int  # pieces, when they had ended
    endless: int  # of those without a deadline: how many
    open_still: int
    wanted: int  # their pieces
    held_still: int
    violations: list[str]  # in the end, when the service was mended


def wait_for_shipping(run: Run, count: int, deadline: float) -> Waited:
    """Shipping is out of order. Half of the sagas have a deadline."""
    timed_out, endless = (list(orders(run.seed, count, World(), name)) for name in ("deadline", "endless"))
    fixed = {(order.id, Action.SHIP): Fate.BROKEN for order in (*timed_out, *endless)}
    shop = open_shop(run, "engine", Fates(steps={}, undos={}, fixed=fixed))
    with opened(Site(shop, run.name, run.endpoints, run.folder, run.worker), patient("order", 60.0)) as engine:
        ahead = next(orders(run.seed, 1, World(), "ahead"))  # by its end, workers and hosts are up
        engine.start(ahead)
        wait(engine, [ahead.id])
        begin_as(engine, patient("endless", 1e6), endless)
        begin_as(engine, patient("deadline", deadline), timed_out)
        ended = wait(engine, [order.id for order in timed_out])
        listed = {one.id: one.reason for one in operator.sagas(engine.client.store.connection, ["compensated"])}
        held, wanted = pieces(shop, timed_out), sum(order.quantity for order in endless)
        until("the others to have their pieces", lambda: pieces(shop, endless) == wanted)
        open_still = len(endless) - len(engine.ended(order.id for order in endless))
        held_still = pieces(shop, endless)
        with shop.open() as services:
            for order in endless:
                mend(services.connections["shipping"], Request(order.id, Action.SHIP, order).id)
        wait(engine, [order.id for order in endless])
    return Waited(
        [end.seconds for end in ended.values()],
        {end.outcome for end in ended.values()},
        [listed.get(order.id, "") for order in timed_out],
        held,
        len(endless),
        open_still,
        wanted,
        held_still,
        judge(shop).violations,
    )


def begin_as(engine: Own, definition: Definition, made: Iterable[Order]) -> None:
    """Begin sagas of this definition."""
    publish(engine.client.store.connection, definition)
    client = replace(engine.client, definition=definition)
    for order in made:
        client.start(order)


def pieces(shop: Shop, made: Iterable[Order]) -> int:
    """Those that are reserved for these orders."""
    return ask(shop, "stock", HELD, [order.id for order in made])
