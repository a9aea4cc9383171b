"""Dirty reads between sagas: a saga or a report takes for granted what another saga undoes later.

The countermeasures are effects of the services (`effects=` of `perform`), and the order of steps.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from saga.lessons.compensating import asker
from saga.lessons.isolation import End, Move, Saga, Taken, close, patiently
from saga.order import STEPS, Action, Order, Request
from saga.services import effects
from saga.services.effects import EFFECTS, Effect
from saga.services.shop import Services
from shared.postgres import Connection


def sale(services: Services, order: Order, how: Mapping[Action, Effect] = EFFECTS) -> Saga:
    """An order with these effects. Where they mark what is unfinished, the marks are taken away at the end."""
    ask = asker(services, how)
    for number, step in enumerate(STEPS[:-1]):
        reply = yield from patiently(partial(ask, Request(order.id, step, order)))
        if reply.refused:
            yield from close(ask, order, reply.refused, STEPS[:number])
            return End.REFUSED
        yield Move.DONE
    end = yield from close(ask, order, ask(Request(order.id, Action.SHIP, order)).refused, STEPS[:-1])
    for service in ("stock", "payments") if how is MARKED and end is End.COMPLETE else ():
        services.connections[service].execute("delete from unfinished where order_id = %s", [order.id])
        yield Move.DONE
    return end


def mark(effect: Effect) -> Effect:
    """Semantic lock: what this effect did is marked until its saga is complete."""

    def marking(connection: Connection, order: Order) -> str:
        if not (refused := effect(connection, order)):
            connection.execute("insert into unfinished values (%s)", [order.id])
        return refused

    return marking


def unmark(effect: Effect) -> Effect:
    def unmarking(connection: Connection, order: Order) -> str:
        connection.execute("delete from unfinished where order_id = %s", [order.id])
        return effect(connection, order)

    return unmarking


def reserve_or_wait(connection: Connection, order: Order) -> str:
    """Where unfinished sagas hold what is missing, it is too early for a refusal. Raises Taken."""
    if not (refused := effects.reserve(connection, order)):
        return ""
    query = """
        select pieces + (select coalesce(sum(quantity), 0) from reservations join unfinished using (order_id)
                         where product = name and status = 'reserved') from products where name = %s
    """
    (possible,) = connection.execute(query, [order.product]).fetchone() or (0,)
    if possible >= order.quantity:
        raise Taken(f"{order.product} may come back from a saga that has not finished")
    return refused


MARKED: Mapping[Action, Effect] = {
    **EFFECTS,
    Action.RESERVE: mark(reserve_or_wait),
    Action.CHARGE: mark(effects.charge),
    Action.RELEASE: unmark(effects.release),
    Action.REFUND: unmark(effects.refund),
}
CHARGED = """
select order_id, exists (select 1 from unfinished u where u.order_id = c.order_id)
from charges c where status = 'charged'
"""


class Reports:
    """A report of the orders that are paid, made over and over again while sagas go on: `every` so many turns."""

    def __init__(self, services: Services, every: int) -> None:
        self.payments = services.connections["payments"]
        self.every = every
        self.turns = 0
        self.paid: list[set[str]] = []  # what each report says
        self.left_out: list[set[str]] = []  # what is paid and marked as unfinished

    def __call__(self) -> None:
        self.turns += 1
        if self.turns % self.every == 0:
            rows = self.payments.execute(CHARGED).fetchall()
            self.paid.append({order for order, unfinished in rows if not unfinished})
            self.left_out.append({order for order, unfinished in rows if unfinished})

    def judge(self) -> tuple[int, int]:
        """Of all lines of all reports: how many are of orders that were undone later; how many true ones lack."""
        rows = self.payments.execute(CHARGED).fetchall()
        stayed = {order for order, _ in rows}
        false = sum(len(paid - stayed) for paid in self.paid)
        return false, sum(len(left_out & stayed) for left_out in self.left_out)


def refused_in_vain(services: Services, made: Iterable[Order]) -> int:
    """Orders that were refused for want of pieces, and for which there are pieces enough in the end."""
    stock = services.connections["stock"]
    left = dict[str, int](stock.execute("select name, pieces from products").fetchall())
    reserved = {order for (order,) in stock.execute("select order_id from reservations").fetchall()}
    return sum(order.quantity <= left[order.product] for order in made if order.id not in reserved)


# Money that is given, spent and taken back.


# A saga each that takes back a complete order, whose parcel can be recalled, or is delivered by now. When it cannot be,
# the money must not be refunded.
GiveBack = Callable[[Services, Order], Saga]


def refund_first(services: Services, order: Order) -> Saga:
    """The popular way. When the recall fails, the refund has to be undone."""
    payments = services.connections["payments"]
    with payments.transaction():
        effects.refund(payments, order)
    yield Move.DONE
    refused = recall(services, order)
    yield Move.DONE
    if refused and not take_back(payments, order):
        return End.IN_DEBT
    return End.COMPENSATED if refused else End.COMPLETE


def promise_first(services: Services, order: Order) -> Saga:
    """Semantic lock: the refund is promised, and given when the parcel is recalled."""
    payments = services.connections["payments"]
    with payments.transaction():
        promise(payments, order)
    yield Move.DONE
    refused = recall(services, order)
    yield Move.DONE
    with payments.transaction():
        break_promise(payments, order)
        if not refused:
            effects.refund(payments, order)
    return End.COMPENSATED if refused else End.COMPLETE


def recall_first(services: Services, order: Order) -> Saga:
    """Pessimistic view: what can fail comes before what others build on."""
    payments, refused = services.connections["payments"], recall(services, order)
    yield Move.DONE
    if not refused:
        with payments.transaction():
            effects.refund(payments, order)
    return End.COMPENSATED if refused else End.COMPLETE


def recall(services: Services, order: Order) -> str:
    """Why the parcel cannot be recalled, if it cannot."""
    return asker(services)(Request(f"return-{order.id}", Action.RECALL, order)).refused


def promise(connection: Connection, order: Order) -> None:
    connection.execute("insert into credits values (%s, %s, %s)", [order.id, order.customer, order.cents])


def break_promise(connection: Connection, order: Order) -> None:
    connection.execute("delete from credits where order_id = %s", [order.id])


def take_back(connection: Connection, order: Order) -> bool:
    """The compensation of a refund. Whether the money is still there."""
    with connection.transaction():
        taken = connection.execute(
            "update accounts set cents = cents - %s where customer = %s and cents >= %s",
            [order.cents, order.customer, order.cents],
        )
        if taken.rowcount:
            again = "update charges set status = 'charged', refunded = refunded - 1 where order_id = %s"
            connection.execute(again, [order.id])
    return bool(taken.rowcount)


def charge_or_wait(connection: Connection, order: Order) -> str:
    """Where a promised refund would do, it is too early for a refusal. Raises Taken."""
    if not (refused := effects.charge(connection, order)):
        return ""
    query = """
        select cents + (select coalesce(sum(cents), 0) from credits c where c.customer = a.customer)
        from accounts a where customer = %s
    """
    (possible,) = connection.execute(query, [order.customer]).fetchone() or (0,)
    if possible >= order.cents:
        raise Taken(f"a refund to {order.customer} is promised by a saga that has not finished")
    return refused


PATIENT: Mapping[Action, Effect] = {**EFFECTS, Action.CHARGE: charge_or_wait}
