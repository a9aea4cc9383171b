"""What experiment 06 needs: a queue of refunds; sagas whose compensation fails for good, and their operator."""

from collections.abc import Iterable

from saga.lessons.redelivering import Guard, refund
from saga.orchestrator import operator
from saga.orchestrator.machine import NotPossible, Verb
from saga.order import Action, Order, Request, TransientError, World, orders
from saga.reading import reader, without_nul
from saga.services import effects
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Shop
from saga.stage.engines.own import Own
from saga.stage.fates import Fate, FatedShop, Fates, mend
from saga.stage.killing import RecordedKill, hook
from saga.windows import EffectWindow
from shared import codec
from shared.errors import NotReadable
from shared.postgres import connect

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
_request = reader(Request)
BROKEN = {Action.SHIP: Fate.REFUSED, Action.RELEASE: Fate.BROKEN}


def stuck(seed: int, few: int) -> tuple[list[Order], Fates]:
    """Orders that are refused by shipping, and whose pieces cannot be released until somebody mends it."""
    made = list(orders(seed, few, World(), "stuck"))
    fixed = {(order.id, action): fate for order in made for action, fate in BROKEN.items()}
    return made, Fates(steps={}, undos={}, fixed=fixed)


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
                refund(payments, guard, request := refund_of(body), attempt)
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
