"""The simplest saga that is right: a loop over the steps, and a log with one row for each saga.

A service gives the same answer to the same request again. So the log need not say how far a saga was: whoever takes
it up asks from its start, and hears what was heard before. A row that nobody can read waits with its reason. There are
no time-outs here, and a step that never answers keeps its saga for ever; for those see saga.orchestrator.
"""

import time

from saga.order import STEPS, UNDO, Action, Order, Reply, Request, TransientError
from saga.reading import reader, without_nul
from saga.services.participant import IMPOSSIBLE
from saga.services.shop import Services
from saga.windows import CALLED, CallWindow, Hook, nowhere
from shared import codec
from shared.errors import NotReadable
from shared.postgres import Connection

LOG = 'create table sagas (id text primary key, "order" bytea not null, ended_at timestamptz, waits text)'
BEGIN = "insert into sagas values (%s, %s) on conflict do nothing"
END = "update sagas set ended_at = clock_timestamp() where id = %s"
OPEN = 'select id, "order" from sagas where ended_at is null and waits is null order by id'
WAITS = "update sagas set waits = %s where id = %s"  # why; to be set to null by who has mended it
_order = reader(Order)
AGAIN = 0.01  # seconds before a service that was busy is asked again


def carry_out(log: Connection, services: Services, order: Order, at: Hook = nowhere) -> bool:
    """The saga of an order, begun or taken up again; whether the order is complete."""
    log.execute(BEGIN, [order.id, codec.encode(order)])
    at(CallWindow.BEFORE)
    refused = False
    for number, action in enumerate(STEPS):
        refused = bool(ask(services, order, action).refused)
        at(CALLED[action])
        if refused:
            for step in reversed(STEPS[:number]):
                ask(services, order, UNDO[step])
            break
    log.execute(END, [order.id])
    return not refused


def ask(services: Services, order: Order, action: Action) -> Reply:
    """The service's answer, however often one has to ask."""
    while True:
        try:
            return services(Request(order.id, action, order))
        except TransientError:
            time.sleep(AGAIN)


def known(log: Connection, order: Order) -> bool:
    """Whether the saga of an order has begun."""
    return log.execute("select 1 from sagas where id = %s", [order.id]).fetchone() is not None


def unfinished(log: Connection) -> list[Order]:
    """The orders whose sagas have begun and not ended. One that cannot be read waits for a person instead."""
    found = []
    for saga, order in log.execute(OPEN).fetchall():
        try:
            found.append(_order(order))
        except NotReadable as error:
            log.execute(WAITS, [str(error), saga])
    return found


def resume(log: Connection, services: Services) -> int:
    """Take up what a dead process left; returns how many sagas that were. What no service can ever do waits."""
    orders = unfinished(log)
    for order in orders:
        try:
            carry_out(log, services, order)
        except IMPOSSIBLE as error:
            log.execute(WAITS, [without_nul(str(error)), order.id])
    return len(orders)
