"""Sagas whose compensation fails for good, and the operator who comes for them."""

from saga.orchestrator import operator
from saga.orchestrator.machine import NotPossible, Verb
from saga.order import Action, Order, Request, World, orders
from saga.services import effects
from saga.services.shop import Shop
from saga.stage.engines.own import Own
from saga.stage.fates import Fate, Fates, mend

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
