"""Services that react to events: in this process without a broker, and as processes that are killed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from saga.choreography import store
from saga.choreography.flow import problems
from saga.choreography.machine import ENDS, MACHINES, Machines
from saga.choreography.service import Service, submitted
from saga.choreography.store import Envelope, Letter
from saga.order import Action, Order, Outcome, World, orders
from saga.services.invariant import Ending, judge
from saga.services.shop import Services
from saga.stage import plays
from saga.stage.changes import LOOPING
from saga.stage.choreography import Cast, Stage, drop, settle, submit
from saga.stage.choreography import create as create_stage
from saga.stage.engines import Site, drive
from saga.stage.engines import choreography as engine
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.foreign import odd
from saga.windows import Hook, ServiceWindow, nowhere
from saga.wrong.choreographing import ByCustomer, WithoutInbox, WithoutOutbox, submitted_by_customer

from shared.checkers import duplicate_effect, lost, phantom
from shared.event import Event
from shared.faults import require
from shared.history import History
from shared.servers.server import Endpoint
from shared.wait import until
from shared.worker import Worker

SPOILT = "insert into outbox (topic, key, value, headers) values ('hall.orders', 'key', '', '\\xfc')"


class Died(Exception):
    """In place of kill -9, where only what was committed is looked at afterwards."""


def die(window: str) -> Hook:
    def at(passed: str) -> None:
        if passed == window:
            raise Died

    return at


class Hall:
    """All services in one room: what one says all others hear, in turns, without a broker."""

    def __init__(
        self, services: Services, kinds: dict[str, type[Service]] | None = None, machines: Machines = MACHINES
    ) -> None:
        self.connections = services.connections
        self.called = services
        self.kinds = kinds or {}
        self.machines = {machine.service: machine for machine in machines}
        self.said: list[Event] = []
        self.letters: list[Letter] = []
        for connection in self.connections.values():
            store.create(connection)
        self.services = {name: self.service(name) for name in self.machines}

    def service(self, name: str, at: Hook = nowhere) -> Service:
        kind = self.kinds.get(name, Service)
        return kind(self.machines[name], self.called, self.send, "hall", at)

    def send(self, messages: Sequence[Envelope]) -> None:
        for one in messages:
            place = f"{one.topic}/0/{len(self.said)}"
            self.letters.append(Letter(place, one.key.encode(), one.value, one.headers))
            self.said.append(Event.from_kafka(one.key.encode(), one.value, one.headers))

    def submit(self, *todo: Order, click: Callable[[Order], Event] = submitted) -> None:
        self.send([store.outgoing("hall", click(order)) for order in todo])

    def turn(self) -> None:
        """Everybody hears what was said before."""
        letters, self.letters = self.letters, []
        for service in self.services.values():
            service.turn(letters)

    def play(self, *todo: Order, click: Callable[[Order], Event] = submitted) -> None:
        """Until nobody has anything to say, or to try again."""
        self.submit(*todo, click=click)
        until("all to be quiet", self._quiet)

    def _quiet(self) -> bool:
        while self.letters:
            self.turn()
        self.turn()
        return not self.letters and all(one.waits for name in self.services for one in self.held(name))

    def held(self, name: str) -> list[store.Held]:
        return store.held(self.connections[name])

    def until_said(self, kind: str) -> Letter:
        """The letter with the first event of this type, which nobody has heard yet."""
        while not any(event.type == kind for event in self.said):
            self.turn()
        return self.letters[-1]


@pytest.fixture
def hall(services: Services) -> Hall:
    return Hall(services)


def test_all_orders_end_consistent_under_seeded_failures(shop: FatedShop) -> None:
    todo = list(orders(3, 25, World()))
    shop = replace(shop, fates=plays.one_refused_at_each(todo, seed=3))
    with shop.open() as services:
        (hall := Hall(services)).play(*todo)
    assert (judge(shop).violations, problems(hall.said)) == ([], [])
    ends = [event.type for event in hall.said if event.type in ENDS]
    assert (len(ends), frozenset(ends)) == (len(todo), ENDS)


def test_event_that_comes_again_is_handled_once(hall: Hall, order: Order, shop: FatedShop) -> None:
    hall.submit(order)
    reserved = hall.until_said("stock.reserved")
    for _ in range(3):
        hall.services["payments"].turn([reserved, reserved])
    hall.play()
    assert [event.type for event in hall.said].count("payments.charged") == 1
    assert hall.held("payments") == []
    assert (judge(shop).endings, judge(shop).violations) == ({order.id: Ending.COMPLETE}, [])


def test_event_that_does_not_fit_the_state_is_kept_and_changes_nothing(
    hall: Hall, order: Order, shop: FatedShop
) -> None:
    hall.play(order)
    [charged] = [event for event in hall.said if event.type == "payments.charged"]
    hall.send([store.outgoing("hall", replace(charged, id="another"))])
    hall.play()
    [kept] = hall.held("shipping")
    assert (kept.saga, kept.waits) == (order.id, True)
    assert "does not expect payments.charged after shipping.shipped" in kept.reason
    assert judge(shop).endings == {order.id: Ending.COMPLETE}


@pytest.mark.parametrize(
    ("data", "saga", "reason"),
    [
        ({"id": "x", "customer": "c"}, "x", "missing required field `product`"),
        ({"id": "x", "customer": "c", "product": "p", "quantity": 1, "cents": 1}, "", "names no saga"),
        ({"id": "x\0", "customer": "c", "product": "p", "quantity": 1, "cents": 1}, "x", "NUL"),
        ({"id": "x", "customer": "c", "product": "p", "quantity": 1, "cents": 2**70}, "x", "out of range"),
    ],
)
def test_event_that_cannot_be_used_is_kept_and_the_next_is_handled(
    hall: Hall, order: Order, data: dict[str, object], saga: str, reason: str
) -> None:
    bad = replace(submitted(order), id="bad", data=data, correlation_id=saga)
    hall.send([store.outgoing("hall", bad)])
    hall.play(order)
    [kept] = hall.held("orders")
    assert reason in kept.reason
    assert hall.said[-1].type == "orders.completed"


def test_message_that_is_no_event_is_kept_by_whoever_reads_it(hall: Hall, order: Order) -> None:
    hall.services["stock"].turn([Letter("hall.orders/0/0", None, b"{", {"ce_correlationid": b"x"})])
    [kept] = hall.held("stock")
    assert (kept.place, kept.saga, kept.waits) == ("hall.orders/0/0", "x", True)
    assert "ce_specversion" in kept.reason


def odd_letters(order: Order) -> dict[str, Letter]:
    """The event that begins a saga, as another program might have written it."""
    said = store.outgoing("hall", submitted(order))
    good = Letter("", said.key.encode(), said.value, said.headers)
    bodies = {name: replace(good, value=body) for name, body in odd(order).items()}
    headers = {
        name: replace(good, headers={**said.headers, name: raw})
        for name, raw in {"ce_id": b"\xfc", "ce_time": b"yesterday", "ce_correlationid": b"a\0b"}.items()
    }
    return bodies | headers | {"a tombstone": replace(good, value=None), "a key": replace(good, key=b"\xfc")}


def test_events_that_nobody_can_read_are_kept_as_they_came_and_the_others_handled(
    hall: Hall, order: Order, shop: FatedShop
) -> None:
    another, sent = msgspec.structs.replace(order, id="another"), odd_letters(order)
    hall.submit(another)
    hall.letters += [replace(letter, place=name) for name, letter in sent.items()]
    hall.submit(order)
    hall.play()
    assert judge(shop).endings == {order.id: Ending.COMPLETE, another.id: Ending.COMPLETE}
    for service in hall.services:
        assert {one.place for one in hall.held(service)} <= sent.keys()
    kept = {one.place: one.reason for one in hall.held("orders") if one.waits}
    assert (set(kept), all(kept.values())) == (set(sent), True)
    rows = hall.connections["orders"].execute("select place, key, value from held").fetchall()
    assert {place: (key, value) for place, key, value in rows} == {
        name: (letter.key, letter.value) for name, letter in sent.items()
    }


def test_what_is_kept_is_tried_again_or_dropped_when_an_operator_says_so(hall: Hall, order: Order) -> None:
    database = hall.connections["orders"]
    hall.services["orders"].turn([Letter("place", None, b"{", {})])
    assert store.retry(database, "place")
    hall.play()
    assert [(one.place, one.waits) for one in hall.held("orders")] == [("place", True)]
    assert [store.discard(database, "place"), store.discard(database, "place")] == [True, False]
    assert hall.held("orders") == []


@pytest.mark.parametrize("spoil", ["insert into held values ('place', '', null, null, '\\xfc', 1, now(), '')", SPOILT])
def test_a_row_of_its_own_that_a_service_cannot_read_waits_and_the_others_do_not(
    hall: Hall, order: Order, shop: FatedShop, spoil: str
) -> None:
    hall.connections["orders"].execute(spoil)
    hall.play(order)
    assert judge(shop).endings == {order.id: Ending.COMPLETE}
    [kept] = hall.held("orders")
    assert (kept.waits, kept.reason.startswith("its headers cannot be read")) == (True, True)


def test_step_that_keeps_failing_waits_for_an_operator_and_goes_on_when_it_is_mended(
    shop: FatedShop, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ATTEMPTS", 3)
    fates = Fates(steps={}, undos={}, fixed={(order.id, Action.CHARGE): Fate.BROKEN})
    with replace(shop, fates=fates).open() as services:
        (hall := Hall(services)).play(order)
        [kept] = hall.held("payments")
        assert (kept.attempts, kept.reason) == (3, f"{order.id}:charge-payment: the service is broken")
        mend(services.connections["payments"], f"{order.id}:charge-payment")
        assert store.retry(services.connections["payments"], kept.place)
        hall.play()
    assert judge(shop).endings == {order.id: Ending.COMPLETE}


def test_event_that_a_dead_process_left_unsent_is_sent_by_the_next(hall: Hall, order: Order, shop: FatedShop) -> None:
    hall.submit(order)
    reserved = hall.until_said("stock.reserved")
    with suppress(Died):
        hall.service("payments", die(ServiceWindow.COMMITTED)).turn([reserved])
    assert hall.said[-1].type == "stock.reserved"
    hall.letters.clear()  # there is nothing to hear
    hall.play()
    assert judge(shop).endings == {order.id: Ending.COMPLETE}


def test_without_an_outbox_such_an_event_is_lost(services: Services, order: Order, shop: FatedShop) -> None:
    hall = Hall(services, {"payments": WithoutOutbox})
    hall.submit(order)
    reserved = hall.until_said("stock.reserved")
    with suppress(Died):
        hall.service("payments", die(ServiceWindow.COMMITTED)).turn([reserved])
    hall.play()
    assert judge(shop).endings == {order.id: Ending.INCONSISTENT}


def test_without_an_inbox_an_event_that_comes_again_charges_again(
    services: Services, order: Order, shop: FatedShop
) -> None:
    hall = Hall(services, {"payments": WithoutInbox})
    hall.submit(order)
    hall.services["payments"].turn([hall.until_said("stock.reserved")])
    hall.play()
    assert judge(shop).violations == [f"{order.id}: charged 2, refunded 0 times"]


@pytest.mark.parametrize(("kind", "wrong"), [(Service, 0), (ByCustomer, 4)])
def test_failure_that_names_only_the_customer_undoes_another_order_of_that_customer(
    shop: FatedShop, kind: type[Service], wrong: int
) -> None:
    todo, fates = plays.pairs(3, World())
    with replace(shop, fates=fates).open() as services:
        kinds = {machine.service: kind for machine in MACHINES}
        Hall(services, kinds).play(*todo, click=submitted_by_customer if kind is ByCustomer else submitted)
    assert judge(shop).count(Ending.INCONSISTENT) == wrong


def test_each_looping_service_passes_alone_and_together_they_go_round(
    shop: FatedShop, services: Services, order: Order
) -> None:
    another = msgspec.structs.replace(order, id="another")
    fates = Fates(steps={}, undos={}, fixed={(one.id, Action.CHARGE): Fate.REFUSED for one in (order, another)})
    services = replace(shop, fates=fates).called(services.connections)
    hall = Hall(services, machines=LOOPING)
    tests = {"stock": ["orders.placed", "payments.refused"], "payments": ["stock.reserved", "stock.held"]}
    said = {name: plays.alone(hall.machines[name], services, another, heard) for name, heard in tests.items()}
    assert said == {"stock": ["stock.reserved", "stock.held"], "payments": ["payments.refused"] * 2}
    hall.submit(order)
    for _ in range(20):
        hall.turn()
    assert [event.type for event in hall.said].count("stock.held") > 5


@pytest.fixture
def stage(postgres: Endpoint, kafka: Endpoint, unique: str, topic: object, tmp_path: Path) -> Iterator[Stage]:
    """Made for processes; `topic` removes the topics again."""
    made = create_stage(postgres, kafka, unique, tmp_path / "history.jsonl", fates=Fates(seed=2))
    yield made
    drop(postgres, made)


@pytest.mark.fault
def test_service_killed_in_every_window_leaves_every_order_consistent(
    stage: Stage, starter: Callable[..., Worker]
) -> None:
    todo = list(orders(2, 8, World()))
    with plays.recorded(stage) as tap:
        cast = Cast(stage, starter).start("orders", "stock", "shipping").start("payments", kills=list(ServiceWindow))
        submit(stage, todo)
        cast.until_ended(len(todo))
        tap.catch_up()
    for window in ServiceWindow:
        require(History.read(stage.history), f"SIGKILL {window}")
    assert (judge(stage.shop).violations, problems(tap.events)) == ([], [])
    settle(stage)
    history = History.read(stage.history)
    assert lost(history) + phantom(history) + duplicate_effect(history) == []


@pytest.mark.fault
def test_behind_the_port_of_the_engines_sagas_end_and_an_order_begun_twice_is_one(
    shop: FatedShop, kafka: Endpoint, unique: str, starter: Callable[..., Worker], tmp_path: Path
) -> None:
    todo = [*orders(4, 6, World())]
    fates = Fates(steps={}, undos={}, fixed={(todo[0].id, Action.SHIP): Fate.REFUSED})
    site = Site(replace(shop, fates=fates), unique, {"kafka": kafka}, tmp_path, starter)
    with engine.opened(site) as choreography:
        found = drive(choreography, [*todo, todo[1]], concurrent=4)
    assert [found[order.id].outcome for order in todo] == [Outcome.COMPENSATED] + [Outcome.COMPLETED] * 5
    assert judge(shop).violations == []
    assert all(0 < ended.seconds < 100 for ended in found.values())
